"""What the claims about the API are measured with: real Kafka, the API and workers as processes."""

import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests

from benchmarks.measure import Claim
from benchmarks.models import make_vit_b32
from benchmarks.photos import make_photos
from benchmarks.server import serving
from benchmarks.worker import Stage, fill, peak_rss, running, stage
from deploy.local import kafka
from deploy.local.ports import free_ports
from scripts.groups import WORKERS, committed_offsets
from shared.clients import end_offsets

_ROWS: Final = 1_000_000
_SHORT_BYTES: Final = 100_000_000
_LONG_BYTES: Final = 2_000_000_000
_REQUESTS: Final = 300
_CLIENTS: Final = 50
_SECONDS: Final = 60.0
_PAIRS: Final = 4
_BULK: Final = 100_000
_PHOTOS: Final = 512
_BATCH_ROWS: Final = 32
_START_SECONDS: Final = 60.0
_WITHIN: Final = 120.0
_INSTANT: Final = (sys.executable, "-m", "benchmarks.worker_process", "instant")
_FAST: Final = (sys.executable, "-m", "benchmarks.worker_process", "0.0001")
_WORKER: Final = (sys.executable, "-m", "worker")
_API: Final = (sys.executable, "-m", "producer", "api")


def check_api_services() -> None:
    """Make sure that what `measure_api` needs can be had, before anything is measured.

    Raises:
        Unavailable: it cannot.
    """
    with kafka():
        pass


def measure_api(root: Path, rounds: int, report: dict[str, float]) -> list[Claim]:
    """Everything; best of `rounds` where it is a rate."""
    names = make_photos(root / "few", _PHOTOS)
    with kafka() as broker:
        claims = _measure_uploads(root, broker.bootstrap_servers, rounds, report)
        claims += _measure_memory(root, broker.bootstrap_servers, report)
        claims += _measure_overhead(root, broker.bootstrap_servers, report)
        with serving(root / "few") as base:
            urls = [f"{base}/{name}" for name in names]
            claims += _measure_clients(root, broker.bootstrap_servers, urls, report)
            claims += _measure_beside_bulk(root, broker.bootstrap_servers, urls, report)
            claims += _measure_beside_fast(root, broker.bootstrap_servers, urls, report)
    return claims


@contextmanager
def _serving_api(on: Stage, folder: Path) -> Iterator[str]:
    """The API on topics of its own while the block runs; its address."""
    with _api_process(on, folder) as (url, _):
        yield url


@contextmanager
def _api_process(on: Stage, folder: Path) -> Iterator[tuple[str, int]]:
    """The same; its address and its process."""
    [port] = free_ports(1)
    environment = on.environment | {
        "PAIRSCORE_API__PORT": str(port),
        "PAIRSCORE_API__ID": "bench",
        "PAIRSCORE_RESULTS": str(folder / "results"),
    }
    url = f"http://127.0.0.1:{port}"
    with running(_API, environment, 1) as [process]:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                requests.get(f"{url}/v1/openapi.json", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield url, process.pid


def _measure_uploads(
    root: Path, bootstrap: str, rounds: int, report: dict[str, float]
) -> list[Claim]:
    """One NDJSON of many rows, from the first byte that is sent to the 202."""
    line = (
        '{{"url": "https://example.org/images/{:07}.jpg", "caption": "a caption of some words"}}\n'
    )
    body = "".join(line.format(row) for row in range(_ROWS)).encode()
    rates: list[float] = []
    with stage(bootstrap) as on, _serving_api(on, root) as url:
        for _ in range(rounds):
            began = time.monotonic()
            reply = requests.post(
                f"{url}/v1/jobs",
                data=body,
                headers={"Content-Type": "application/x-ndjson"},
                timeout=10 * _WITHIN,
            )
            seconds = time.monotonic() - began
            if reply.status_code != 202 or reply.json()["published"] != _ROWS:
                raise RuntimeError(f"{reply.status_code}: {reply.text}")
            rates.append(_ROWS / seconds)
    print(
        f"POST /v1/jobs, {_ROWS:,} rows ({len(body) / 1e6:.0f} MB) of NDJSON: "
        f"{', '.join(f'{rate:,.0f}' for rate in rates)} rows/s",
        flush=True,
    )
    report["api upload rows/s"] = max(rates)
    return [("POST /v1/jobs, NDJSON, rows/s", max(rates), ">=", 20_000)]


def _measure_memory(root: Path, bootstrap: str, report: dict[str, float]) -> list[Claim]:
    """What a long body takes of memory that a short one does not."""
    peaks: dict[int, int] = {}
    for size in (_SHORT_BYTES, _LONG_BYTES):
        with stage(bootstrap) as on, _api_process(on, root) as (url, pid):
            began = time.monotonic()
            reply = requests.post(
                f"{url}/v1/jobs",
                data=_long_body(size),
                headers={"Content-Type": "application/x-ndjson"},
                timeout=10 * _WITHIN,
            )
            seconds = time.monotonic() - began
            reply.raise_for_status()
            peaks[size] = peak_rss(pid)
        print(
            f"POST /v1/jobs, {size / 1e9:.1f} GB of NDJSON, {reply.json()['published']:,} rows: "
            f"{seconds:.0f} s, peak RSS of the API {peaks[size] / 1e6:.0f} MB",
            flush=True,
        )
        report[f"api peak rss, {size / 1e9:.1f} GB, MB"] = peaks[size] / 1e6
    more = (peaks[_LONG_BYTES] - peaks[_SHORT_BYTES]) / 1e6
    return [("peak RSS of a body 20 times as long, MB more", more, "<=", 50)]


def _long_body(size: int) -> Iterator[bytes]:
    """So many bytes of NDJSON at least, with captions of some 2,000 characters."""
    caption = "a caption that goes on and on, as those of people who write well do. " * 30
    block = "".join(
        json.dumps({"url": f"https://example.org/images/{row:04}.jpg", "caption": caption}) + "\n"
        for row in range(500)
    ).encode()
    for _ in range(0, size, len(block)):
        yield block


def _measure_overhead(root: Path, bootstrap: str, report: dict[str, float]) -> list[Claim]:
    """In line with a scorer that answers at once: all that is not the scorer's."""
    pairs = [{"url": "http://example.org/1.jpg", "caption": "a caption"}] * _PAIRS
    with stage(bootstrap) as on, running(_INSTANT, on.environment, 1):
        on.wait_for_all(1)
        with _serving_api(on, root) as url:
            times = _ask(url, [pairs] * _REQUESTS)
    middle, most = _middle(times), _most(times)
    print(
        f"in line, {_PAIRS} pairs, a scorer that answers at once: p50 {1e3 * middle:.1f} ms, p95 "
        f"{1e3 * most:.1f} ms",
        flush=True,
    )
    report |= {"api in line p50, ms": 1e3 * middle, "api in line p95, ms": 1e3 * most}
    return [("in-line overhead, p50, ms", 1e3 * middle, "<=", 60)]


def _measure_clients(
    root: Path, bootstrap: str, urls: Sequence[str], report: dict[str, float]
) -> list[Claim]:
    """Many clients at once, the demo model, pictures that are new each time."""
    times: list[float] = []
    errors: list[str] = []
    with stage(bootstrap) as on:
        environment = on.environment | {
            "PAIRSCORE_MODEL": "demo",
            "PAIRSCORE_FETCH__HOST_LIMITS": "127.0.0.1=100000/64",
        }
        with running(_WORKER, environment, 1):
            on.wait_for_all(1)
            with _serving_api(on, root) as url:
                _ask(url, [_some(urls, 0)] * 5)
                until = time.monotonic() + _SECONDS

                def client(number: int) -> None:
                    with requests.Session() as session:
                        turn = 0
                        while time.monotonic() < until:
                            turn += 1
                            pairs = _some(urls, number * 1_000_003 + turn * _PAIRS)
                            began = time.monotonic()
                            try:
                                _score(session, url, pairs)
                            except (requests.RequestException, RuntimeError) as error:
                                errors.append(str(error))
                            times.append(time.monotonic() - began)

                threads = [threading.Thread(target=client, args=(n,)) for n in range(_CLIENTS)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    most = _most(times)
    print(
        f"{_CLIENTS} clients for {_SECONDS:.0f} s, {_PAIRS} new pictures a request, demo model: "
        f"{len(times):,} requests, {len(errors)} errors, p50 {1e3 * _middle(times):.0f} ms, p95 "
        f"{1e3 * most:.0f} ms{'; ' + errors[0] if errors else ''}",
        flush=True,
    )
    report |= {"api 50 clients p95, ms": 1e3 * most, "api 50 clients requests": len(times)}
    return [(f"{_CLIENTS} in-line clients, {_SECONDS:.0f} s: errors", len(errors), "<=", 0)]


def _measure_beside_bulk(
    root: Path, bootstrap: str, urls: Sequence[str], report: dict[str, float]
) -> list[Claim]:
    """In line on an idle fleet, and with many rows queued that nobody waits for."""
    model = make_vit_b32(root / "vit-b-32")
    with stage(bootstrap) as on:
        environment = on.environment | {
            "PAIRSCORE_MODEL": str(model),
            "PAIRSCORE_BATCH_SIZE": str(_BATCH_ROWS),
            "PAIRSCORE_FETCH__HOST_LIMITS": "127.0.0.1=100000/64",
        }
        with running(_WORKER, environment, 1):
            on.wait_for_all(1)
            with _serving_api(on, root) as url:
                asked = [_some(urls, 7_000_000 + _PAIRS * n)[:1] for n in range(80)]
                _ask(url, asked[:5])
                idle = _ask(url, asked[5:40])
                batch = _batch_seconds(url, urls)
                _queue_bulk(on, bootstrap, urls)
                time.sleep(20)  # until the scorer is full of them
                beside = _ask(url, asked[40:])
                _check_bulk_left(on)
    print(f"a batch of {_BATCH_ROWS} takes {1e3 * batch:.0f} ms", flush=True)
    report["api batch, ms"] = 1e3 * batch
    return [_beside("ViT-B/32", idle, beside, batch, report)]


def _measure_beside_fast(
    root: Path, bootstrap: str, urls: Sequence[str], report: dict[str, float]
) -> list[Claim]:
    """The same where the scorer is as fast as a GPU, so that the worker is what is busy."""
    with stage(bootstrap) as on, running(_FAST, on.environment, 1):
        on.wait_for_all(1)
        with _serving_api(on, root) as url:
            asked = [_some(urls, _PAIRS * n)[:1] for n in range(200)]
            _ask(url, asked[:10])
            idle = _ask(url, asked[10:100])
            _queue_bulk(on, bootstrap, urls)
            time.sleep(2)  # until the window is full of them
            beside = _ask(url, asked[100:])
            _check_bulk_left(on)
    return [_beside("a scorer of 0.1 ms a pair", idle, beside, 0.0, report)]


def _queue_bulk(on: Stage, bootstrap: str, urls: Sequence[str]) -> None:
    rows = [(f"{urls[n % len(urls)]}?{n}", "a caption") for n in range(_BULK)]
    fill(bootstrap, on.topics.pairs, rows)


def _check_bulk_left(on: Stage) -> None:
    """Make sure that there were such rows to the end."""
    places = [(on.topics.pairs, number) for number in range(on.connection.settings.partitions)]
    read = committed_offsets(on.connection, WORKERS, places, _WITHIN)
    ends = end_offsets(on.admin, places, committed=True)
    if sum(ends[place] - read.get(place, 0) for place in places) < _BULK // 100:
        raise RuntimeError("the rows that were to be queued meanwhile were all scored")


def _beside(
    scorer: str,
    idle: Sequence[float],
    beside: Sequence[float],
    batch: float,
    report: dict[str, float],
) -> Claim:
    print(
        f"in line, one pair, {scorer}: p95 {1e3 * _most(idle):.0f} ms on an idle worker, "
        f"{1e3 * _most(beside):.0f} ms with {_BULK:,} rows queued (p50 {1e3 * _middle(idle):.0f}, "
        f"{1e3 * _middle(beside):.0f})",
        flush=True,
    )
    report |= {
        f"api idle p95, {scorer}, ms": 1e3 * _most(idle),
        f"api beside bulk p95, {scorer}, ms": 1e3 * _most(beside),
    }
    allowed = _most(idle) + batch + 0.25
    name = f"in line, {scorer}: p95 beside {_BULK:,} rows / (idle + a batch + 250 ms)"
    return (name, _most(beside) / allowed, "<=", 1.0)


def _batch_seconds(url: str, urls: Sequence[str]) -> float:
    """How long a batch takes: what one more of them adds to a request."""
    with requests.Session() as session:
        seconds = []
        for batches in (1, 3):
            pairs = [
                {"url": f"{urls[n % len(urls)]}?batch-{batches}-{n}", "caption": "a caption"}
                for n in range(batches * _BATCH_ROWS)
            ]
            began = time.monotonic()
            _score(session, url, pairs)
            seconds.append(time.monotonic() - began)
    return max(0.0, seconds[1] - seconds[0]) / 2


def _some(urls: Sequence[str], first: int) -> list[dict[str, str]]:
    return [
        {"url": f"{urls[n % len(urls)]}?{n}", "caption": "a red square"}
        for n in range(first, first + _PAIRS)
    ]


def _ask(url: str, requested: Sequence[list[dict[str, str]]]) -> list[float]:
    """One request after the other; how long each takes."""
    times: list[float] = []
    with requests.Session() as session:
        for pairs in requested:
            began = time.monotonic()
            _score(session, url, pairs)
            times.append(time.monotonic() - began)
    return times


def _score(session: requests.Session, url: str, pairs: list[dict[str, str]]) -> None:
    body = json.dumps({"pairs": pairs, "timeout": 60.0})
    headers = {"Content-Type": "application/json"}
    reply = session.post(f"{url}/v1/scores", data=body, headers=headers, timeout=_WITHIN)
    if reply.status_code != 200:
        raise RuntimeError(f"{reply.status_code}: {reply.text[:200]}")
    found: dict[str, Any] = reply.json()
    bad = [each for each in found["outcomes"] if each["status"] != "scored"]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(pairs)}: {bad[0]}")


def _middle(times: Sequence[float]) -> float:
    return statistics.median(times)


def _most(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]
