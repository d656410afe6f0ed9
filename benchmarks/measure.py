"""Runs a command and says what it cost."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

Claim: TypeAlias = tuple[str, float, str, float]
"""What is claimed, what was measured, `>=` or `<=`, and what is required."""

_STEPS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run over `rows` rows: seconds of wall clock and CPU without loading the model; bytes."""

    rows: int
    scored: int
    seconds: float
    cpu_seconds: float
    peak_rss: int

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU a row."""
        return 1000 * self.cpu_seconds / self.rows


def run_module(module: str, *arguments: str | Path) -> tuple[dict[str, Any], int]:
    """What `python -m module` printed last, as JSON, and its peak RSS in bytes."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True)
        assert process.stdout is not None
        with process.stdout as printed:
            out = printed.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            complaints.seek(0)
            line = f"{' '.join(command)} ended with {process.returncode}"
            raise RuntimeError(f"{line}:\n{complaints.read()}")
    return json.loads(out.splitlines()[-1]), usage.ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def run_reference(source: Path, model: Path, scratch: Path) -> Run:
    """The obvious script."""
    report, peak = run_module("benchmarks.reference", source, scratch / "reference.csv", model)
    return Run(report["rows"], report["scored"], report["seconds"], report["cpu_seconds"], peak)


def run_pairscore(source: Path, model: Path | str, scratch: Path, *options: str) -> Run:
    """`pairscore score`."""
    fixed = ("--json", "--overwrite", "--allow-net", "127.0.0.0/8", "--model", str(model))
    target = ("-o", str(scratch / "scored.csv"))
    report, peak = run_module("pairscore", "score", source, *target, *fixed, *options)
    return Run(report["rows"], report["scored"], report["seconds"], report["cpu_seconds"], peak)


def best(runs: Sequence[Run]) -> Run:
    """The fastest: on a machine that others use too, what disturbs only ever adds."""
    return min(runs, key=lambda run: run.seconds / run.rows)


def interpreter_rate(seconds: float = 1.0) -> float:
    """Million steps/s of a plain loop of Python's in one thread, over so long.

    Producer, sinks and a worker without a model are bound by the interpreter: with this, figures of
    two machines, or of two hours of a shared one, can be compared.
    """
    steps, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        total = 0
        for number in range(_STEPS):
            total += number * number
        steps += _STEPS
    return steps / spent / 1e6
