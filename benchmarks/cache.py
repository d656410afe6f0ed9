"""What the claims about the cache are measured with: real Redis, real Kafka."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis as redis_client

from benchmarks.cache_hits import fill, pairs
from benchmarks.measure import Claim, run_module, run_pairscore
from benchmarks.models import make_vit_b32
from benchmarks.photos import make_photos, write_csv
from benchmarks.server import serving
from deploy.local import NativeRedis, kafka, redis
from pairscore.cache.codec import Keys
from pairscore.clip import load_model
from pairscore.settings import Settings

_PAIRS: Final = 5_000
_HITS: Final = 50_000
_KEYS: Final = 1_000_000
_WORKED: Final = 100_000
_UNIQUE: Final = 30_000
_PHOTOS: Final = 256


def check_cache_services() -> None:
    """Make sure that what `measure_cache` needs can be had, before anything is measured.

    Raises:
        Unavailable: it cannot.
    """
    with kafka(), redis(native=True):
        pass


def measure_cache(root: Path, rounds: int, report: dict[str, float]) -> list[Claim]:
    """Everything; best of `rounds`, but for the passes over a file and the million keys."""
    claims = _measure_passes(root, report)
    with redis(native=True) as server:
        claims += _measure_hits(server, rounds, report)
    with kafka() as broker:
        address = ("--bootstrap", broker.bootstrap_servers)
        with redis(native=True) as server:
            claims += _measure_worker(root, address, server, report)
        with redis(native=True) as server:
            claims += _measure_paused(root, address, server, rounds, report)
    return claims


def _measure_passes(root: Path, report: dict[str, float]) -> list[Claim]:
    """A file scored twice, with a model of ViT-B/32's shape: the second time all is known."""
    model = make_vit_b32(root / "vit-b-32")
    names = make_photos(root / "photos")
    kept = root / "cache"
    shutil.rmtree(kept, ignore_errors=True)
    with serving(root / "photos") as base:
        urls = [f"{base}/{names[row % len(names)]}?{row}" for row in range(_PAIRS)]
        source = write_csv(root / "passes.csv", urls)
        first, second = (run_pairscore(source, model, root, "--cache", str(kept)) for _ in range(2))
    print(f"first pass {first.rate:,.1f} pairs/s, second {second.rate:,.0f}", flush=True)
    report |= {"first pass pairs/s": first.rate, "second pass pairs/s": second.rate}
    return [(f"second pass over {_PAIRS:,} pairs / first", second.rate / first.rate, ">=", 20)]


def _measure_hits(server: NativeRedis, rounds: int, report: dict[str, float]) -> list[Claim]:
    runs = [
        run_module("benchmarks.cache_hits", str(_HITS), "--redis", server.url)[0]
        for _ in range(rounds)
    ]
    run = min(runs, key=lambda each: each["shared_us"] - each["local_us"])
    cost = run["shared_us"] - run["local_us"] + run["redis_us"]
    print(
        f"a pair whose image and caption are in Redis: {run['shared_us']:.0f} us of CPU, and "
        f"{run['redis_us']:.0f} of Redis's; in memory: {run['local_us']:.0f} us",
        flush=True,
    )
    report |= {f"hits {name}": value for name, value in run.items()}
    return [("CPU of Redis and for it, a pair on a hit, us", cost, "<=", 40)]


def _measure_worker(
    root: Path, address: tuple[str, str], server: NativeRedis, report: dict[str, float]
) -> list[Claim]:
    """A worker all of whose rows are known, among a million keys."""
    model = load_model(Settings(model="demo"))
    keys, dimensions = Keys(model.fingerprint, model.dimensions), model.dimensions
    model.close()
    client = redis_client.Redis.from_url(server.url)
    fill(client, keys, _KEYS // 3 + 1, dimensions)
    known = list(pairs(_WORKED))
    source = root / "known.csv"
    source.write_text("url,caption\n" + "".join(f"{p.url},{p.caption}\n" for p in known))
    with _environment(PAIRSCORE_REDIS__URL=server.url):
        run = _work(address, source)
    print(f"worker, all hits, {client.dbsize():,} keys: {run:,.0f} pairs/s", flush=True)
    report["worker, all hits, pairs/s"] = run
    return [("worker, all hits, pairs/s", run, ">=", 4_000)]


def _measure_paused(
    root: Path,
    address: tuple[str, str],
    server: NativeRedis,
    rounds: int,
    report: dict[str, float],
) -> list[Claim]:
    """A worker with a Redis that does not answer, and one without any."""
    names = make_photos(root / "few", _PHOTOS)
    rates: dict[str, list[float]] = {"without": [], "paused": []}
    with serving(root / "few") as base:
        urls = [f"{base}/{names[row % _PHOTOS]}?{row}" for row in range(_UNIQUE)]
        source = write_csv(root / "once.csv", urls)
        server.pause()
        try:
            for _ in range(rounds):
                rates["without"].append(_work(address, source))
                with _environment(PAIRSCORE_REDIS__URL=server.url):
                    rates["paused"].append(_work(address, source))
        finally:
            server.resume()
    found = {name: max(of) for name, of in rates.items()}
    print(", ".join(f"worker, Redis {n}: {r:,.0f} pairs/s" for n, r in found.items()), flush=True)
    report |= {f"worker, Redis {name}, pairs/s": rate for name, rate in found.items()}
    return [("worker, Redis paused / without", found["paused"] / found["without"], ">=", 0.9)]


def _work(address: tuple[str, str], source: Path) -> float:
    options = (*address, "--csv", str(source), "--model", "demo")
    return float(run_module("benchmarks.worker", "0", *options)[0]["rows_per_second"])


@contextmanager
def _environment(**more: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
