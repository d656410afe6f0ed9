"""Every check that needs no model: `prepare` makes them, and writes nothing."""

import stat
from dataclasses import dataclass
from pathlib import Path

from pairscore.csv_file.columns import Column, find_columns
from pairscore.csv_file.dialect import Dialect, check_delimiter, name_delimiter, sniff_delimiter
from pairscore.csv_file.layout import Layout, new_columns
from pairscore.csv_file.output import Output
from pairscore.csv_file.records import Record
from pairscore.csv_file.sidecar import Sidecar
from pairscore.csv_file.source import open_source
from pairscore.errors import InputError

_SET_NAME = "challenge_set"
_SCORED_NAME = "challenge"


@dataclass(frozen=True, slots=True)
class Plan:
    """An input that can be scored as it is, and where its result goes.

    `rows` counts the input's rows without its header. `begun` is what an interrupted run that is
    to be continued was begun with. `notes` are lines for the user: what was guessed, and what will
    happen to files and columns that are there already.
    """

    input: Path
    output: Path
    dialect: Dialect
    header: tuple[str, ...]
    url: Column
    caption: Column
    layout: Layout
    rows: int
    input_sha256: str
    input_stamp: tuple[int, int]
    resume: bool
    overwrite: bool
    begun: Sidecar | None
    notes: tuple[str, ...]

    def sidecar(self, fingerprint: str) -> Sidecar:
        """What a run of this plan with the model of that fingerprint is begun with."""
        return Sidecar(
            input_sha256=self.input_sha256,
            url_column=self.url.name,
            caption_column=self.caption.name,
            delimiter=self.dialect.delimiter,
            details=self.layout.details,
            overwrite=self.overwrite,
            fingerprint=fingerprint,
        )


@dataclass(frozen=True, slots=True)
class _Survey:
    dialect: Dialect
    header: Record
    url: Column
    caption: Column
    rows: int
    sha256: str


def prepare(
    input: Path,  # noqa: A002 - the word for it, as in score_csv
    output: Path | None = None,
    *,
    url_column: str | None = None,
    caption_column: str | None = None,
    delimiter: str | None = None,
    details: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Read the whole input once, in constant memory, and check every condition of scoring it.

    Args:
        input: CSV in UTF-8 with a header, plain or gzip.
        output: where the result goes; `default_output(input)` if None; gzip if it ends in `.gz`.
        url_column: name of the column of image URLs; guessed if None.
        caption_column: name of the column of captions; guessed if None.
        delimiter: one character; sniffed if None.
        details: also add the columns cosine, caption_truncated, image_sha256 and attempts.
        resume: continue an interrupted run if there is one.
        overwrite: replace an output, discard an interrupted run (unless `resume`), and leave out
            columns of the input that have the name of a new one.

    Raises:
        InputError: the first condition that is not met.
    """
    stamp = check_input(input)
    place = Output(_resolved(output if output is not None else default_output(input)))
    place.check_place(input)
    with place.locked():
        begun = place.check_leftovers(resume=resume, overwrite=overwrite)
    allowed = overwrite or (begun is not None and begun.overwrite)
    survey = _survey(input, url_column, caption_column, delimiter)
    layout = Layout(
        delimiter=survey.dialect.delimiter,
        terminator=survey.dialect.terminator,
        width=len(survey.header.cells),
        details=details,
        dropped=_dropped(input, survey, details=details, overwrite=allowed),
    )
    plan = Plan(
        input=input,
        output=place.path,
        dialect=survey.dialect,
        header=tuple(survey.header.cells),
        url=survey.url,
        caption=survey.caption,
        layout=layout,
        rows=survey.rows,
        input_sha256=survey.sha256,
        input_stamp=stamp,
        resume=resume,
        overwrite=allowed,
        begun=begun,
        notes=_notes(survey, layout, place, sniffed=delimiter is None, resume=resume, begun=begun),
    )
    if begun is not None:
        begun.check_same(plan.sidecar(begun.fingerprint), place.partial)
    return plan


def default_output(input: Path) -> Path:  # noqa: A002 - as in prepare
    """`challenge_set.csv` -> `challenge_scored.csv`; else `X.csv` -> `X_scored.csv`; gzip alike."""
    suffixes = ".csv.gz" if input.suffix == ".gz" else input.suffix
    name = input.stem
    if input.suffix == ".gz" and (inner := Path(name).suffix):
        suffixes, name = f"{inner}.gz", Path(name).stem
    base = _SCORED_NAME if name == _SET_NAME else name
    return input.with_name(f"{base}_scored{suffixes}")


def check_input(path: Path) -> tuple[int, int]:
    """Make sure that the input is a file with something in it; return its size and time of change.

    Raises:
        InputError: it is not.
    """
    if str(path) == "-":
        raise InputError(
            "standard input is not supported, because the input is read twice (to check it, then "
            "to score it); save it to a file first"
        )
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened: {error.strerror or error}; check the path"
        ) from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: this is a folder; name a CSV file in it")
    if not stat.S_ISREG(found.st_mode) or path.parts[:2] in (("/", "dev"), ("/", "proc")):
        raise InputError(f"{path}: this is not a regular file; save the data to one first")
    if found.st_size == 0:
        raise InputError(f"{path}: the file is empty; it needs a header line with column names")
    return found.st_size, found.st_mtime_ns


def _resolved(output: Path) -> Path:
    # A link is written through: replacing it would leave the file it names as it was.
    return output.resolve() if output.is_symlink() else output


def _survey(path: Path, url: str | None, caption: str | None, delimiter: str | None) -> _Survey:
    if delimiter is not None:
        delimiter = check_delimiter(delimiter)
    else:
        with open_source(path) as source:
            delimiter = sniff_delimiter(source.sample(), url, caption)
    with open_source(path) as source:
        records = source.records(delimiter)
        header = next(records, None)
        if header is None:
            raise InputError(f"{path}: the file is empty; it needs a header line with column names")
        if not header.cells:
            raise InputError(f"{path}: line 1: the line is empty; it must be the header")
        url_column, caption_column = find_columns(header.cells, url, caption, f"{path}: line 1")
        rows = sum(1 for _ in records)
        dialect = Dialect(delimiter, header.terminator or "\n", source.bom)
        return _Survey(dialect, header, url_column, caption_column, rows, source.sha256)


def _dropped(path: Path, survey: _Survey, *, details: bool, overwrite: bool) -> frozenset[int]:
    names = new_columns(details)
    found = [i for i, name in enumerate(survey.header.cells) if name in names]
    if not found:
        return frozenset()
    listed = " and ".join(repr(survey.header.cells[i]) for i in found)
    for column in (survey.url, survey.caption):
        if column.index in found:
            raise InputError(
                f"{path}: line 1: the column {column.name!r} is read, and the output has a new one "
                "of that name; rename it in the header"
            )
    if not overwrite:
        raise InputError(
            f"{path}: line 1: the header has {listed} already; rename that in the header, or let "
            "the new column take its place with --overwrite"
        )
    return frozenset(found)


def _notes(
    survey: _Survey,
    layout: Layout,
    place: Output,
    *,
    sniffed: bool,
    resume: bool,
    begun: Sidecar | None,
) -> tuple[str, ...]:
    notes = [
        f"taking {column.name!r} as the column of {what}; {option} chooses another"
        + (f" (such as {', '.join(map(repr, column.others))})" if column.others else "")
        for column, what, option in (
            (survey.url, "image URLs", "--url-column"),
            (survey.caption, "captions", "--caption-column"),
        )
        if column.guessed
    ]
    if sniffed and survey.dialect.delimiter != ",":
        notes.append(f"taking {name_delimiter(survey.dialect.delimiter)} as the delimiter")
    if layout.dropped:
        names = ", ".join(repr(survey.header.cells[i]) for i in sorted(layout.dropped))
        notes.append(f"leaving out the input's own {names}")
    if begun is not None:
        notes.append(f"continuing from {place.partial}")
    elif resume:
        notes.append(f"there is no {place.partial} to continue from: starting at the first row")
    return tuple(notes)
