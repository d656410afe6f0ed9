"""CPU time of fetching and decoding alone: `python -m benchmarks.fetch_decode WAY MODEL INPUT`.

WAY is `reference` (requests in 16 threads, Pillow, CLIPProcessor) or `pairscore`.
"""

import csv
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue


def reference(urls: list[str], model: str) -> float:
    from transformers import CLIPProcessor

    from benchmarks.reference import BATCH, download

    processor = CLIPProcessor.from_pretrained(model)
    begun = time.process_time()
    with ThreadPoolExecutor(16) as pool:
        images = list(pool.map(download, urls))
    for start in range(0, len(images), BATCH):
        processor(images=images[start : start + BATCH], return_tensors="pt")
    return time.process_time() - begun


def pairscore(urls: list[str], _model: str) -> float:
    from pairscore.fetch import Fetched, Fetcher, FetchResult, parse_url
    from pairscore.image import Preprocessor, configure_thread, decode
    from pairscore.pair import Failure
    from pairscore.settings import load_settings

    settings = load_settings({"fetch": {"allow_networks": "127.0.0.0/8"}})
    preprocess = Preprocessor(224, (224, 224))
    results: SimpleQueue[FetchResult] = SimpleQueue()
    begun = time.process_time()
    fetcher = Fetcher(settings.fetch, on_crash=lambda error: print(repr(error), file=sys.stderr))
    for url in urls:
        parsed = parse_url(url)
        assert not isinstance(parsed, Failure)
        fetcher.fetch(parsed, results.put)

    def work() -> None:
        configure_thread()
        for _ in range(len(urls) // 2):
            fetched = results.get(timeout=60)
            assert isinstance(fetched, Fetched), fetched
            image = decode(fetched.body, max_pixels=64_000_000)
            assert not isinstance(image, Failure)
            preprocess(image)
            fetcher.consumed(fetched)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.process_time() - begun
    fetcher.close()
    return spent


if __name__ == "__main__":
    way, model_folder, source = sys.argv[1:]
    with open(source, newline="") as lines:
        named = [row["url"] for row in csv.DictReader(lines)]
    spent = {"reference": reference, "pairscore": pairscore}[way](named, model_folder)
    print(json.dumps({"cpu_ms_per_image": 1000 * spent / len(named)}))
