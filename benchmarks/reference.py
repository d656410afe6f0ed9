"""The obvious script, which pairscore is measured against: phase after phase, batch after batch.

requests in 16 threads, then CLIPProcessor and CLIPModel in eager mode, 32 pairs at a time, in fp32:

    python -m benchmarks.reference INPUT OUTPUT MODEL
"""

import csv
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import requests
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

BATCH = 32


def download(url: str) -> Image.Image | None:
    try:
        response = requests.get(url, timeout=10)
        response.raise_for_status()
        return Image.open(BytesIO(response.content)).convert("RGB")
    except (requests.RequestException, OSError):
        return None


def main(source: str, target: str, model_name: str) -> None:
    model = CLIPModel.from_pretrained(model_name)
    model.eval()
    processor = CLIPProcessor.from_pretrained(model_name)
    begun, cpu = time.perf_counter(), time.process_time()
    with open(source, newline="") as lines:
        rows = list(csv.DictReader(lines))
    with ThreadPoolExecutor(16) as pool:
        images = list(pool.map(download, [row["url"] for row in rows]))
    prepared = time.process_time()
    similarities: list[float | None] = [None] * len(rows)
    usable = [i for i, image in enumerate(images) if image is not None]
    for start in range(0, len(usable), BATCH):
        chosen = usable[start : start + BATCH]
        inputs = processor(
            text=[rows[i]["caption"] for i in chosen],
            images=[images[i] for i in chosen],
            return_tensors="pt",
            padding=True,
            truncation=True,
        )
        with torch.inference_mode():
            logits = model(**inputs).logits_per_image
        for i, similarity in zip(chosen, logits.diagonal().tolist(), strict=True):
            similarities[i] = similarity
    with open(target, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([*rows[0], "similarity", "error"])
        for row, similarity in zip(rows, similarities, strict=True):
            writer.writerow([*row.values(), similarity, "" if similarity is not None else "failed"])
    report = {
        "rows": len(rows),
        "scored": len(usable),
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "download_cpu_seconds": prepared - cpu,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
