"""What the claims about hosts are measured with: real Kafka and Redis, measured at the server."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.hosts_server import Hosts, many_hosts
from benchmarks.measure import Claim
from benchmarks.photos import make_photos, write_csv
from benchmarks.worker import fill, reading, running, stage
from deploy.local import kafka, redis

_PHOTOS: Final = 256
_ROWS: Final = 10_000
_FAST_HOSTS: Final = 25
_WINDOW: Final = 60.0
_RATE: Final = 20
_CONNECTIONS: Final = 8
_WORKERS: Final = 4
_LONGEST: Final = 600.0
_WORKER: Final = (sys.executable, "-m", "worker")


def check_host_services() -> None:
    """Make sure that what `measure_hosts` needs can be had, before anything is measured.

    Raises:
        Unavailable: it cannot.
    """
    with kafka(), redis(native=True):
        pass


def measure_hosts(root: Path, report: dict[str, float]) -> list[Claim]:
    """Everything, once."""
    names = make_photos(root / "few", _PHOTOS)
    claims: list[Claim] = []
    with kafka() as broker:
        with many_hosts(root / "few") as hosts, redis(native=True) as server:
            claims += _measure_rate(hosts, names, broker.bootstrap_servers, server.url, report)
        claims += _measure_slow_host(root, names, broker.bootstrap_servers, report)
    return claims


def _measure_rate(
    hosts: Hosts, names: Sequence[str], bootstrap: str, redis_url: str, report: dict[str, float]
) -> list[Claim]:
    """Four workers with one host, and how often it is asked."""
    host = "127.0.8.1"
    urls = _urls(hosts, [host], names, _ROWS)
    with stage(bootstrap) as on:
        environment = on.environment | {
            "PAIRSCORE_MODEL": "demo",
            "PAIRSCORE_REDIS__URL": redis_url,
            "PAIRSCORE_FETCH__HOST_LIMITS": f"{host}={_RATE}/{_CONNECTIONS}",
        }
        with running(_WORKER, environment, _WORKERS):
            on.wait_for_all(_WORKERS)
            fill(bootstrap, on.topics.pairs, [(url, "a red square") for url in urls])
            deadline = time.monotonic() + _LONGEST
            while True:
                times, peak = hosts.asked().get(host, ([], 0))
                if times and times[-1] - times[0] > _WINDOW + 15:
                    break
                _check(deadline)
    most = max(sum(t <= at < t + _WINDOW for at in times) for t in times if t < times[-1] - _WINDOW)
    steady = sum(times[-1] - _WINDOW <= at for at in times)
    print(
        f"4 workers, {_RATE}/s: {most} requests in the busiest minute, {steady} in the last, "
        f"{peak} at once",
        flush=True,
    )
    report |= {"host, most in 60 s": most, "host, last 60 s": steady, "host, at once": peak}
    return [
        ("one host, 4 workers: busiest 60 s / its rate", most / (_RATE * _WINDOW), "<=", 1.05),
        ("the same: connections at once", peak, "<=", _CONNECTIONS),
    ]


def _measure_slow_host(
    root: Path, names: Sequence[str], bootstrap: str, report: dict[str, float]
) -> list[Claim]:
    """Rows of fast hosts, alone and between as many of one that takes a second for each."""
    claims: list[Claim] = []
    for way in ("pairscore score", "one worker"):
        seconds: dict[str, float] = {}
        for mixed in (False, True):
            with many_hosts(root / "few") as hosts:
                fast_hosts = [f"127.0.7.{n}" for n in range(1, _FAST_HOSTS + 1)]
                fast = _urls(hosts, fast_hosts, names, _ROWS)
                slow = _urls(hosts, ["127.0.9.1"], names, _ROWS)
                rows = [url for pair in zip(slow, fast, strict=True) for url in pair]
                urls = rows if mixed else fast
                name = "with" if mixed else "without"
                seconds[name] = (
                    _score(root, hosts, urls)
                    if way == "pairscore score"
                    else _work(bootstrap, urls)
                )
        print(
            f"{way}: {_ROWS:,} rows of fast hosts in {seconds['without']:.1f} s, between "
            f"{_ROWS:,} of a slow one in {seconds['with']:.1f} s",
            flush=True,
        )
        report |= {f"{way}, fast rows {name} slow host, s": s for name, s in seconds.items()}
        ratio = seconds["with"] / seconds["without"]
        claims.append((f"{way}: fast rows beside a slow host / alone", ratio, "<=", 1.2))
    return claims


def _score(root: Path, hosts: Hosts, urls: Sequence[str]) -> float:
    """How long fetching all of the fast rows takes; the command is ended then."""
    source = write_csv(root / "hosts.csv", urls)
    command = [sys.executable, "-m", "pairscore", "score", str(source), "--model", "demo"]
    command += ["-o", str(root / "scored.csv"), "--overwrite", "--allow-net", "127.0.0.0/8"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + _LONGEST
        try:
            while True:
                times = sorted(
                    at
                    for host, (asked, _) in hosts.asked().items()
                    if host.startswith("127.0.7.")
                    for at in asked
                )
                if len(times) >= _ROWS:
                    return times[-1] - times[0]
                _check(deadline)
        finally:
            process.kill()


def _work(bootstrap: str, urls: Sequence[str]) -> float:
    """How long it takes until all of the fast rows have scores."""
    with stage(bootstrap) as on:
        environment = on.environment | {"PAIRSCORE_MODEL": "demo"}
        with running(_WORKER, environment, 1):
            on.wait_for_all(1)
            started = time.monotonic()
            fill(bootstrap, on.topics.pairs, [(url, "a red square") for url in urls])
            deadline, left = started + _LONGEST, _ROWS
            with reading(on.connection, on.partitions) as consumer:
                while left:
                    for message in consumer.consume(1_000, 0.2):
                        key = message.key()
                        assert message.error() is not None or isinstance(key, bytes)
                        left -= message.error() is None and b"//127.0.7." in (key or b"")
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{left:,} rows are not scored")
            return time.monotonic() - started


def _urls(hosts: Hosts, names: Sequence[str], photos: Sequence[str], count: int) -> list[str]:
    return [
        f"http://{names[n % len(names)]}:{hosts.port}/{photos[n % len(photos)]}?{n}"
        for n in range(count)
    ]


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the host is not asked for all of its rows")
    time.sleep(0.5)
