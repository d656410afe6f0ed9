"""`make bench`: pairscore against the obvious script and against the machine's limit, in one run.

Nothing is asked of a network: the model has ViT-B/32's shape and random weights, the pictures are
made. What is compared runs alternately; of each the best round counts. Results go to stdout and to
.bench/results.json, which keeps those of a part that is not measured anew.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from benchmarks.api import check_api_services, measure_api
from benchmarks.cache import check_cache_services, measure_cache
from benchmarks.fleet import check_services, measure_fleet
from benchmarks.hosts import check_host_services, measure_hosts
from benchmarks.measure import (
    Claim,
    Run,
    best,
    interpreter_rate,
    run_module,
    run_pairscore,
    run_reference,
)
from benchmarks.models import CAPTION_GFLOP, IMAGE_GFLOP
from benchmarks.photos import make_photos, write_csv
from benchmarks.server import serving
from pairscore.clip.choice import available_cores
from pairscore.errors import PairscoreError

ROOT = Path(__file__).resolve().parent.parent / ".bench"
_FEW, _MANY = 5_000, 100_000

Part: TypeAlias = Callable[[int, dict[str, float]], list[Claim]]


def main() -> int:
    """Measure, print, and give 1 if a requirement was missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=tuple(_PARTS), default=None)
    options = parser.parse_args()
    try:
        return _measure([options.only] if options.only else list(_PARTS), options.rounds)
    except PairscoreError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return error.exit_code


def _measure(parts: Sequence[str], rounds: int) -> int:
    if "fleet" in parts:
        check_services()
    if "cache" in parts:
        check_cache_services()
    if "hosts" in parts:
        check_host_services()
    if "api" in parts:
        check_api_services()
    ROOT.mkdir(exist_ok=True)
    claims: list[Claim] = []
    print(f"{_machine()}\n")
    for part in parts:
        report: dict[str, float] = {}
        claims += _PARTS[part](rounds, report)
        _keep(report)
    print("\n| claim | measured | required |\n|---|---|---|")
    missed = 0
    for claim, measured, relation, required in claims:
        met = measured >= required if relation == ">=" else measured <= required
        missed += not met
        print(f"| {claim} | {measured:.3g} | {relation} {required:.3g}{'' if met else ' MISSED'} |")
    return 1 if missed else 0


def _keep(report: dict[str, float]) -> None:
    kept = ROOT / "results.json"
    before = json.loads(kept.read_text()) if kept.exists() else {}
    kept.write_text(json.dumps(before | report, indent=2) + "\n")


def _measure_speed(rounds: int, report: dict[str, float]) -> list[Claim]:
    # In a process of its own, as all that needs memory: a child's peak includes its parent's.
    model = Path(run_module("benchmarks.models", ROOT / "vit-b-32")[0]["folder"])
    names = make_photos(ROOT / "photos")
    bf16 = "avx512_bf16" in _flags()
    ways = {"fp32": ("fp32",), "int8": ("int8",)} | ({"bf16": ("bf16",)} if bf16 else {})
    runs: dict[str, list[Run]] = {}
    gemm: list[float] = []
    cpu: dict[str, list[float]] = {"reference": [], "pairscore": []}
    with serving(ROOT / "photos") as base:
        urls = [f"{base}/{name}" for name in names]
        unique = write_csv(ROOT / "unique.csv", urls)
        order = np.random.default_rng(0).permutation(2 * len(urls))
        twice = write_csv(ROOT / "twice.csv", [urls[i % len(urls)] for i in order], seed=1)
        warm = write_csv(ROOT / "warm.csv", urls[:8])
        for (precision,) in ways.values():  # exports are made once; not what is measured
            run_pairscore(warm, model, ROOT, "--precision", precision)
        print("| what | pairs/s | CPU-ms a pair | peak RSS, MB |\n|---|---|---|---|")
        for _ in range(rounds):
            gemm.append(run_module("benchmarks.limit")[0]["gflops"])
            _note(runs, "reference (a)", run_reference(unique, model, ROOT))
            for way, (precision,) in ways.items():
                run = run_pairscore(unique, model, ROOT, "--precision", precision)
                _note(runs, f"pairscore {way}", run)
            for way, spent in cpu.items():
                figures, _ = run_module("benchmarks.fetch_decode", way, model, unique)
                spent.append(figures["cpu_ms_per_image"])
        _note(runs, "pairscore fp32, half duplicates", run_pairscore(twice, model, ROOT))
    limit = max(gemm) / (IMAGE_GFLOP + CAPTION_GFLOP)
    rate = {name: best(of).rate for name, of in runs.items()}
    a = rate["reference (a)"]
    print(f"\nGEMM {max(gemm):.0f} GFLOP/s, so at most {limit:.1f} pairs/s at fp32")
    print(
        f"fetch + decode, CPU-ms an image: {', '.join(f'{w} {min(s):.2f}' for w, s in cpu.items())}"
    )
    print(f"(a) reaches {a / limit:.3f} of that")
    report |= {"gemm": max(gemm), "limit": limit}
    report |= {f"{name} {key}": v for name, r in runs.items() for key, v in asdict(best(r)).items()}
    report |= {f"fetch_decode {way}": min(spent) for way, spent in cpu.items()}
    int8 = 3.0 if {"avx512_vnni", "avx_vnni"} & _flags() else 2.2
    claims = [
        ("fp32, share of the limit", rate["pairscore fp32"] / limit, ">=", 0.85),
        ("fp32 / (a)", rate["pairscore fp32"] / a, ">=", 1.1),
        ("int8 / (a)", rate["pairscore int8"] / a, ">=", int8),
        ("fetch + decode CPU / (a)'s", min(cpu["pairscore"]) / min(cpu["reference"]), "<=", 1 / 3),
        (
            "half duplicates / unique",
            rate["pairscore fp32, half duplicates"] / rate["pairscore fp32"],
            ">=",
            1.7,
        ),
    ]
    if bf16:
        claims.append(("bf16 / (a)", rate["pairscore bf16"] / a, ">=", 2.0))
    rss = {name: min(run.peak_rss for run in of) for name, of in runs.items()}
    claims += [
        (f"peak RSS {way} / (a)'s", rss[f"pairscore {way}"] / rss["reference (a)"], "<=", 1.0)
        for way in ways
    ]
    return claims


def _measure_memory(_rounds: int, report: dict[str, float]) -> list[Claim]:
    names = make_photos(ROOT / "few", 256)
    peaks: dict[int, int] = {}
    with serving(ROOT / "few") as base:
        for rows in (_FEW, _MANY):
            urls = [f"{base}/{names[i % len(names)]}" for i in range(rows)]
            source = write_csv(ROOT / f"rows-{rows}.csv", urls, captions=2_000)
            run = run_pairscore(source, "demo", ROOT)
            peaks[rows] = run.peak_rss
            print(f"{rows:,} rows, demo model: {run.rate:,.0f} rows/s, {run.peak_rss / 1e6:.0f} MB")
    report |= {f"rss {rows}": peak for rows, peak in peaks.items()}
    growth = peaks[_MANY] / peaks[_FEW]
    return [(f"RSS at {_MANY:,} rows / at {_FEW:,}", growth, "<=", 1.1)]


def _note(runs: dict[str, list[Run]], name: str, run: Run) -> None:
    if run.scored != run.rows:
        raise RuntimeError(f"{name}: {run.rows - run.scored} rows failed; nothing to compare")
    runs.setdefault(name, []).append(run)
    print(f"| {name} | {run.rate:.1f} | {run.cpu_ms:.1f} | {run.peak_rss / 1e6:.0f} |", flush=True)


def _flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    notable = sorted(flag for flag in _flags() if flag.startswith(("avx512_", "amx_")))
    return (
        f"{available_cores()} cores of {name or platform.processor()} "
        f"({', '.join(notable)}), load {os.getloadavg()[0]:.1f} before; "
        f"Python {platform.python_version()} at {interpreter_rate():.1f} million steps/s, "
        f"torch {metadata.version('torch')}"
    )


_PARTS: Final[dict[str, Part]] = {
    "speed": _measure_speed,
    "memory": _measure_memory,
    "fleet": lambda rounds, report: measure_fleet(ROOT, rounds, report),
    "cache": lambda rounds, report: measure_cache(ROOT, rounds, report),
    "hosts": lambda _, report: measure_hosts(ROOT, report),
    "api": lambda rounds, report: measure_api(ROOT, rounds, report),
}


if __name__ == "__main__":
    sys.exit(main())
