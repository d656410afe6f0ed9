"""Writes docs/reference.md, docs/schemas/ and docs/asyncapi.json from the code: `make docs`.

With `--check` nothing is written: it fails if a file would change, or if a link from one Markdown
file to another, to a heading in it, or to a file of the repository, leads nowhere.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pairscore.cli.app import EXIT_CODES
from pairscore.pair import REASONS
from pairscore.settings import Settings
from shared.dead_letter import HEADERS
from shared.schemas import channels, documents
from shared.settings import SERVICES, KafkaSettings
from shared.telemetry.metrics import CATALOGUE, Metric

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_FLEET = (
    "A worker takes those above too; in it, `PAIRSCORE_FETCH__ATTEMPTS` counts across all retry "
    "tiers, and `PAIRSCORE_WINDOW` bounds the rows that are taken and not yet published. A "
    "variable that no service knows is refused; one that only another service knows is not."
)
_TOPICS = (
    "Names, partitions and retry tiers as the default settings have them; "
    "`python -m shared.topics create` makes what is missing. Values are JSON: "
    "[schemas/](schemas) has a schema of each message, [asyncapi.json](asyncapi.json) all of this "
    "as AsyncAPI."
)
_METRICS = (
    "At `/metrics` of every service, beside those of the process (`process_*`). On the same port, "
    "`/livez` answers 200 while the service's loop goes round, `/readyz` while it can work; each "
    "else 503, with one line that says why."
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


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
        "## Settings of the fleet",
        _FLEET,
        _table(("variable", "default", "meaning", "read by"), _fleet_settings()),
        "## Topics",
        _TOPICS,
        _table(("topic", "key", "value", "partitions", "kept", "written by", "read by"), _topics()),
        "A dead letter has the bytes of the record as its value and these headers:",
        _table(("header", "value"), ((f"`{n}`", meaning) for n, meaning in HEADERS.items())),
        "## Metrics",
        _METRICS,
        _table(("metric", "kind", "labels", "meaning"), map(_metric, CATALOGUE)),
    ]
    return "\n\n".join(parts) + "\n"


def _commands() -> Iterator[str]:
    for name in ("score", "demo", "doctor", "cache stats", "cache clear"):
        yield _help(f"pairscore {name}", "pairscore", *name.split())
    yield EXIT_CODES
    for module in (
        "producer csv",
        "producer cancel",
        "producer api",
        "producer keys add",
        "producer keys list",
        "producer keys revoke",
        "worker",
        "sink",
        "sink status",
        "shared.topics",
    ):
        yield _help(f"python -m {module}", *module.split())


def _help(title: str, *module: str) -> str:
    shown = subprocess.run(
        [sys.executable, "-m", *module, "--help"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    return f"### {title}\n\n```text\n{shown.stdout.strip()}\n```"


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


def _fleet_settings() -> Iterator[tuple[str, ...]]:
    of_the_package = dict.fromkeys(_settings(Settings, "PAIRSCORE_"))
    read_by: dict[tuple[str, ...], list[str]] = {}
    for service in SERVICES:
        for row in _settings(service, "PAIRSCORE_"):
            if row not in of_the_package:
                read_by.setdefault(row, []).append(
                    service.__name__.removesuffix("Settings").lower()
                )
    for row, services in read_by.items():
        yield *row, "all" if len(services) == len(SERVICES) else ", ".join(services)


def _topics() -> Iterator[tuple[str, ...]]:
    for channel in channels(KafkaSettings()):
        name = channel.message
        value = f"[{name}](schemas/{name}.json)" if name else "the record's bytes"
        yield (
            f"`{channel.spec.name}`",
            channel.key,
            value,
            str(channel.spec.partitions),
            channel.kept,
            ", ".join(channel.written_by),
            ", ".join(channel.read_by),
        )


def _metric(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label.name}`" for label in metric.labels)
    return f"`{metric.name}`", metric.kind, labels, metric.help


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or value in (None, (), {}, ""):
        return ""
    return f"`{','.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    choices = getattr(field.annotation, "__args__", ())
    if not choices or not all(isinstance(choice, str) for choice in choices):
        return field.description or ""
    listed = " · ".join(f"`{choice}`" for choice in choices)
    return f"{listed}; {field.description}" if field.description else listed


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def dead_links() -> Iterator[str]:
    """Links of the repository's Markdown files that lead to no file, or to no heading of one."""
    patterns = ("*.md", "docs/**/*.md", "*/README.md", "deploy/*/README.md")
    for page in sorted(page for pattern in patterns for page in ROOT.glob(pattern)):
        for path, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
            target = page.parent / path if path else page
            if "://" in path:
                continue
            if not target.exists():
                yield f"{page.relative_to(ROOT)}: {path} does not exist"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield f"{page.relative_to(ROOT)}: {path}#{anchor}: there is no such heading"


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub has it."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {heading.replace(" ", "-") for heading in plain}


def stale(texts: Mapping[str, str]) -> Iterator[str]:
    """Files of docs/ that differ from the code."""
    for path, text in texts.items():
        written = DOCS / path
        if not written.exists() or written.read_text(encoding="utf-8") != text:
            yield f"docs/{path} differs from the code; run `make docs`"
    for written in DOCS.glob("schemas/*"):
        if written.relative_to(DOCS).as_posix() not in texts:
            yield f"docs/schemas/{written.name} is of no message; remove it"


def main() -> int:
    """Write, or check; the exit code."""
    parser = argparse.ArgumentParser(description="Write what docs/ has of the code.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    texts = {"reference.md": reference(), **documents()}
    if not parser.parse_args().check:
        for path, text in texts.items():
            (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
            (DOCS / path).write_text(text, encoding="utf-8")
        return 0
    complaints = [*dead_links(), *stale(texts)]
    for complaint in complaints:
        sys.stderr.write(f"docs: {complaint}\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
