"""Writes docs/reference.md from the code: `python scripts/docs.py [--check]`.

With `--check` nothing is written: it fails if the file would change, or if a link from one Markdown
file to another, or to a file of the repository, leads nowhere.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pairscore.cli.app import EXIT_CODES
from pairscore.pair import REASONS
from pairscore.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference.md"
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def reference() -> str:
    """The whole text of the reference."""
    parts = [
        "# Reference",
        "Written by `make docs` from the code; edit that, not this.",
        "## Commands",
        *_commands(),
        "## Reasons",
        "The `error` column holds nothing or one of these, with any detail after a colon.",
        _table(("reason", "when", "tried again"), _reasons()),
        "## Settings",
        "Every one can be set in the environment; options of the command win over it.",
        _table(("variable", "default", "meaning"), _settings(Settings, "PAIRSCORE_")),
    ]
    return "\n\n".join(parts) + "\n"


def _commands() -> Iterator[str]:
    for name in ("score", "demo", "doctor"):
        command = [sys.executable, "-m", "pairscore", name, "--help"]
        shown = subprocess.run(
            command,
            env={**os.environ, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=True,
        )
        yield f"### pairscore {name}\n\n```text\n{shown.stdout.strip()}\n```"
    yield EXIT_CODES


def _reasons() -> Iterator[tuple[str, ...]]:
    for reason, (when, again) in REASONS.items():
        yield f"`{reason.value}`", when, again


def _settings(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{variable}__")
        else:
            yield f"`{variable}`", _default(field), _meaning(field)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or value is None or value == ():
        return ""
    return f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return " · ".join(f"`{choice}`" for choice in choices)
    return field.description or ""


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def dead_links() -> Iterator[str]:
    """Links of the repository's Markdown files that lead to no file."""
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]):
        for target in _LINK.findall(page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                yield f"{page.relative_to(ROOT)}: {target} does not exist"


def main() -> int:
    """Write, or check; the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/reference.md from the code.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    text = reference()
    if not parser.parse_args().check:
        REFERENCE.parent.mkdir(exist_ok=True)
        REFERENCE.write_text(text)
        return 0
    complaints = list(dead_links())
    if not REFERENCE.exists() or REFERENCE.read_text() != text:
        complaints.append("docs/reference.md differs from the code; run `make docs`")
    for complaint in complaints:
        sys.stderr.write(f"docs: {complaint}\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
