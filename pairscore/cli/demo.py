"""`pairscore demo`: a synthetic data set in a folder, served and scored on loopback if wanted."""

import csv
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from pairscore.csv_file import default_output
from pairscore.demo.dataset import CSV_NAME, make_dataset
from pairscore.demo.server import serve as serving
from pairscore.errors import EnvironmentFault, InputError

_MARKER: Final = ".pairscore-demo"
_LOOPBACK: Final = "127.0.0.0/8"
_SHOWN: Final = 5
_CELL: Final = 70
_TURN_SECONDS: Final = 1.0


def run_demo(
    folder: Path, *, rows: int, seed: int, host: str, port: int, serve: bool, then_score: bool
) -> None:
    """Make the data set; serve it until interrupted, or score it and show what came out."""
    console = Console(soft_wrap=True)
    _claim(folder)
    if then_score:
        # Any free port will do: nobody comes back to the URLs of this run.
        with serving(folder, port=0) as base_url:
            source = _make(folder, rows, seed, base_url)
            console.out(f"made {rows:,} rows in {folder}, served at {base_url}", highlight=False)
            _score(source)
        show_extremes(console, default_output(source))
        return
    base_url = f"http://{host}:{port}"
    if (folder / _MARKER).read_text(encoding="utf-8") == _made(rows, seed, base_url):
        source = folder / CSV_NAME
    else:
        source = _make(folder, rows, seed, base_url)
        console.out(f"made {rows:,} rows in {source}", highlight=False)
    if serve:
        _serve(console, folder, host, port, source)
        return
    again = f"pairscore demo {shlex.quote(str(folder))} --rows {rows} --seed {seed} --port {port}"
    console.out(
        f"serve it with: {again} --serve\nthen score it:  {_advice(source)}", highlight=False
    )


def show_extremes(console: Console, scored: Path) -> None:
    """Show the rows of a result that score best, and worst."""
    with scored.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("similarity")]
    rows.sort(key=lambda row: -float(row["similarity"]))
    shown = min(_SHOWN, len(rows) // 2)
    best, worst = rows[:shown], rows[len(rows) - shown :]
    for title, extreme in ((f"best {shown} of {len(rows):,}", best), (f"worst {shown}", worst)):
        console.out(f"\n{title:<16}  {'similarity':>10}  caption", highlight=False)
        for row in extreme:
            console.out(_line(row), highlight=False)


def _claim(folder: Path) -> None:
    """Mark the folder as the demo's, so that running it again may replace what is in it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the demo's data set")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARKER).exists():
        raise InputError(
            f"{folder} holds files that are not the demo's; name an empty or a new folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARKER).touch()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None


def _make(folder: Path, rows: int, seed: int, base_url: str) -> Path:
    try:
        source = make_dataset(folder, rows=rows, seed=seed, base_url=base_url).csv
        # Last, so that what was interrupted is not taken for whole.
        (folder / _MARKER).write_text(_made(rows, seed, base_url), encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{folder}: the data set cannot be written: {error}") from None
    return source


def _made(rows: int, seed: int, base_url: str) -> str:
    return f"{rows} rows, seed {seed}, at {base_url}\n"


def _serve(console: Console, folder: Path, host: str, port: int, source: Path) -> None:
    with ExitStack() as stack:
        try:
            base_url = stack.enter_context(serving(folder, port=port, host=host))
        except OSError as error:
            raise InputError(f"port {port}: {error.strerror}; choose another with --port") from None
        console.out(f"serving {folder} at {base_url} until Ctrl-C", highlight=False)
        console.out(f"score it with: {_advice(source)}", highlight=False)
        # In turns: an endless wait never hears of a signal that comes just before it begins.
        while True:
            time.sleep(_TURN_SECONDS)


def _advice(source: Path) -> str:
    quoted = shlex.quote(str(source))
    return f"pairscore score {quoted} --model demo --allow-net {_LOOPBACK} --timeout 2"


def _score(source: Path) -> None:
    # Two attempts: enough for what is flaky in it, and what is dead does not hold the demo up.
    options = ("--model", "demo", "--allow-net", _LOOPBACK, "--timeout", "2", "--attempts", "2")
    command = [sys.executable, "-m", "pairscore", "score", str(source), *options, "--overwrite"]
    ended = subprocess.run(command, check=False)  # noqa: S603 - our own command
    if ended.returncode:
        sys.exit(ended.returncode)


def _line(row: dict[str, str]) -> str:
    image, caption = row["url"].rpartition("/")[2], " ".join(row["caption"].split())
    cut = caption if len(caption) <= _CELL else f"{caption[: _CELL - 1]}…"
    return f"{image[-16:]:<16}  {row['similarity']:>10}  {cut}"
