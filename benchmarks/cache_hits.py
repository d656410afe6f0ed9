"""What a hit costs: `python -m benchmarks.cache_hits ROWS --redis URL`, with entries that it makes.

The same rows twice through a scorer: the first time all that they need is in Redis, the second time
in memory. Prints the CPU time of a pair each time, and Redis's own.
"""

import argparse
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import redis

from pairscore import garbage
from pairscore.cache import CaptionEntry, UrlEntry
from pairscore.cache.codec import Keys, encode_caption, encode_image, encode_url
from pairscore.pair import Pair, Score
from pairscore.scorer import Scorer
from pairscore.settings import CacheSettings, FetchSettings, RedisSettings, Settings

_DIMENSIONS: Final = 512
_AT_ONCE: Final = 1_000
_LASTING: Final = 86_400
_MICRO: Final = 1e6


class Idle:
    """A model that is never needed."""

    name = fingerprint = "idle"
    dimensions = _DIMENSIONS
    batch_size = 64
    logit_scale = 100.0

    preprocessing = SimpleNamespace(resize=224, crop=(224, 224))


def pairs(rows: int) -> Iterator[Pair]:
    """Different URLs on a thousand hosts, different captions."""
    for row in range(rows):
        yield Pair(f"http://host{row % 1000}.example/{row}.jpg", f"a caption of number {row}")


def fill(server: Any, keys: Keys, rows: int, dimensions: int) -> None:  # noqa: ANN401
    """Put in all that these rows need."""
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal(dimensions).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    fresh_until = time.time() + _LASTING
    pipeline = server.pipeline(transaction=False)
    for row, pair in enumerate(pairs(rows)):
        sha256 = f"{row:064x}"
        url, image, caption = keys.url(pair.url), keys.image(sha256), keys.caption(pair.caption)
        entry = UrlEntry(sha256, fresh_until, pair.url, '"an-etag-of-some-length"')
        pipeline.set(url, encode_url(url, entry), ex=_LASTING)
        pipeline.set(image, encode_image(image, embedding), ex=_LASTING)
        pipeline.set(caption, encode_caption(caption, CaptionEntry(embedding, False)), ex=_LASTING)
        if row % _AT_ONCE == _AT_ONCE - 1:
            pipeline.execute()
    pipeline.execute()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_hits", description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--redis", required=True, help="URL of one that may be filled")
    options = parser.parse_args()
    print(json.dumps(measure(options.rows, options.redis)))


def measure(rows: int, url: str) -> dict[str, float]:
    """Microseconds of CPU a pair, and pairs/s."""
    server = redis.Redis.from_url(url)
    fill(server, Keys(Idle.fingerprint, _DIMENSIONS), rows, _DIMENSIONS)
    settings = Settings(
        # What is late on a busy machine is no hit, and would be fetched.
        redis=RedisSettings(url=url, timeout=5),
        cache=CacheSettings(bytes=10_000 * rows),
        fetch=FetchSettings(attempts=1),
    )
    with Scorer(settings, model=Idle()) as scorer:  # type: ignore[arg-type]
        garbage.set_aside()  # as commands and workers do
        before = _cpu(server)
        shared, shared_seconds = _score(scorer, rows)
        own = _cpu(server) - before
        local, local_seconds = _score(scorer, rows)
    return {
        "rows": rows,
        "shared_us": shared / rows * _MICRO,
        "local_us": local / rows * _MICRO,
        "redis_us": own / rows * _MICRO,
        "shared_per_second": rows / shared_seconds,
        "local_per_second": rows / local_seconds,
    }


def _score(scorer: Scorer, rows: int) -> tuple[float, float]:
    """CPU seconds and seconds."""
    cpu, begun = time.process_time(), time.monotonic()
    scored = sum(isinstance(outcome, Score) for outcome in scorer.score_pairs(pairs(rows)))
    if scored != rows:
        raise RuntimeError(f"{rows - scored} of {rows} rows were not known")
    return time.process_time() - cpu, time.monotonic() - begun


def _cpu(server: Any) -> float:  # noqa: ANN401
    found = server.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


if __name__ == "__main__":
    main()
