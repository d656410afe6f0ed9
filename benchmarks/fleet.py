"""What the fleet's claims of speed and memory are measured with: real Kafka, real Postgres."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import psycopg

from benchmarks.measure import Claim, Run, best, run_module, run_pairscore
from benchmarks.models import make_vit_b32
from benchmarks.photos import make_photos, write_csv
from benchmarks.server import serving
from deploy.local import kafka, postgres

Figures: TypeAlias = dict[str, float]

_FEW: Final = 10_000
_MANY: Final = 1_000_000
_MANY_SCORED: Final = 100_000
_PHOTOS: Final = 256


def check_services() -> None:
    """Make sure that what `measure_fleet` needs can be had, before anything is measured.

    Raises:
        Unavailable: it cannot.
    """
    with kafka(), postgres():
        pass


def measure_fleet(root: Path, rounds: int, report: dict[str, float]) -> list[Claim]:
    """Everything, against real services; best of `rounds`."""
    with kafka() as broker, postgres() as database:
        address = ("--bootstrap", broker.bootstrap_servers)
        claims = _measure_model(root, address, rounds, report)
        claims += _measure_services(address, database.url, rounds, report)
        claims += _measure_scaling(address, report)
        claims += _measure_memory(root, address, database.url, report)
    return claims


def _measure_model(
    root: Path, address: tuple[str, str], rounds: int, report: dict[str, float]
) -> list[Claim]:
    """A worker with a model of ViT-B/32's shape against the command of one machine."""
    model = make_vit_b32(root / "vit-b-32")
    names = make_photos(root / "photos")
    command: list[Run] = []
    worker: list[float] = []
    with serving(root / "photos") as base:
        source = write_csv(root / "unique.csv", [f"{base}/{name}" for name in names])
        warm = write_csv(root / "warm.csv", [f"{base}/{name}" for name in names[:8]])
        run_pairscore(warm, model, root)
        for _ in range(rounds):
            command.append(run_pairscore(source, model, root))
            found = _run("worker", 0, *address, "--csv", str(source), "--model", str(model))
            worker.append(found["rows_per_second"])
    alone = best(command).rate
    print(f"ViT-B/32 fp32: command {alone:.1f}, worker {max(worker):.1f} pairs/s", flush=True)
    report |= {"command pairs/s": alone, "worker pairs/s": max(worker)}
    return [("worker + Kafka / pairscore score", max(worker) / alone, ">=", 0.95)]


def _measure_services(
    address: tuple[str, str], database: str, rounds: int, report: dict[str, float]
) -> list[Claim]:
    ways: dict[str, tuple[float, Callable[[], Figures]]] = {
        "worker, a scorer that answers at once": (
            8_000,
            lambda: _run("worker", 200_000, *address),
        ),
        "producer csv": (50_000, lambda: _run("producer", 500_000, *address)),
        "sink csv": (30_000, lambda: _run("sink_csv", 300_000, *address)),
        "sink postgres": (
            20_000,
            lambda: _run("sink_postgres", 300_000, *address, "--postgres", _fresh(database)),
        ),
    }
    claims: list[Claim] = []
    for name, (required, run) in ways.items():
        rates = [run()["rows_per_second"] for _ in range(rounds)]
        print(f"{name}: {', '.join(f'{rate:,.0f}' for rate in rates)} rows/s", flush=True)
        report[f"{name} rows/s"] = max(rates)
        claims.append((f"{name}, rows/s", max(rates), ">=", required))
    return claims


def _measure_scaling(address: tuple[str, str], report: dict[str, float]) -> list[Claim]:
    """Workers whose scorer sleeps 20 ms a pair: 50 pairs/s each, if nothing else holds them up."""
    rates: dict[int, float] = {}
    for count in (1, 2, 4):
        options = ("--scorer", "0.02", "--workers", str(count), "--window", "60")
        rates[count] = _run("worker", 20_000, *address, *options)["rows_per_second"]
        print(f"{count} workers, 20 ms a pair: {rates[count]:.1f} pairs/s", flush=True)
        report[f"{count} sleeping workers pairs/s"] = rates[count]
    return [
        (f"{count} workers / {count} x one", rates[count] / rates[1] / count, ">=", 0.95)
        for count in (2, 4)
    ]


def _measure_memory(
    root: Path, address: tuple[str, str], database: str, report: dict[str, float]
) -> list[Claim]:
    ways: dict[str, tuple[int, Callable[[int], Figures]]] = {
        "producer csv": (_MANY, lambda rows: _run("producer", rows, *address)),
        "sink csv": (_MANY, lambda rows: _run("sink_csv", rows, *address)),
        "sink postgres": (
            _MANY,
            lambda rows: _run("sink_postgres", rows, *address, "--postgres", _fresh(database)),
        ),
    }
    names = make_photos(root / "few", _PHOTOS)
    claims: list[Claim] = []
    with serving(root / "few") as base:

        def work(rows: int) -> Figures:
            urls = [f"{base}/{names[i % len(names)]}" for i in range(rows)]
            source = write_csv(root / f"rows-{rows}.csv", urls, captions=2_000)
            return _run("worker", 0, *address, "--csv", str(source), "--model", "demo")

        ways["worker"] = (_MANY_SCORED, work)
        for name, (many, run) in ways.items():
            peaks = {rows: run(rows)["peak_rss_mb"] for rows in (_FEW, many)}
            print(f"{name}: {peaks[_FEW]:.0f} MB, at {many:,} rows {peaks[many]:.0f}", flush=True)
            report |= {f"{name} rss {rows}": peak for rows, peak in peaks.items()}
            claims.append(
                (f"RSS of {name}, {many:,} rows / {_FEW:,}", peaks[many] / peaks[_FEW], "<=", 1.1)
            )
    return claims


def _run(name: str, rows: int, *options: str) -> Figures:
    return run_module(f"benchmarks.{name}", str(rows), *options)[0]


def _fresh(url: str) -> str:
    """The database without what an earlier run left in it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop schema if exists pairscore cascade")
    return url
