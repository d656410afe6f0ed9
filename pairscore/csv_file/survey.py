"""Every check of an input that needs neither a model nor a place for the result."""

import stat
from dataclasses import dataclass
from pathlib import Path

from pairscore.csv_file.columns import Column, find_columns
from pairscore.csv_file.dialect import Dialect, check_delimiter, name_delimiter, sniff_delimiter
from pairscore.csv_file.layout import Layout, new_columns
from pairscore.csv_file.records import Record
from pairscore.csv_file.source import open_source
from pairscore.errors import InputError


class TooManyRows(InputError):
    """The input has more rows than were allowed."""


@dataclass(frozen=True, slots=True)
class Survey:
    """An input that can be scored as it is.

    `rows` counts its rows without the header, and `longest` the characters of the longest of them.
    `sha256` is the hex digest of the file as it is (gzip as gzip), `stamp` what `check_input` gave.
    `notes` are lines for the user: what was guessed, and which columns will be left out.
    """

    path: Path
    dialect: Dialect
    header: Record
    url: Column
    caption: Column
    layout: Layout
    rows: int
    longest: int
    sha256: str
    stamp: tuple[int, int]
    notes: tuple[str, ...]


def survey_input(
    path: Path,
    *,
    url_column: str | None = None,
    caption_column: str | None = None,
    delimiter: str | None = None,
    details: bool = False,
    overwrite: bool = False,
    most_rows: int | None = None,
) -> Survey:
    """Read the whole input once, in constant memory, and check every condition that is on it.

    Args:
        path: CSV in UTF-8 with a header, plain or gzip.
        url_column: name of the column of image URLs; guessed if None.
        caption_column: name of the column of captions; guessed if None.
        delimiter: one character; sniffed if None.
        details: the result will also have the columns cosine, caption_truncated, image_sha256 and
            attempts.
        overwrite: leave out columns of the input that have the name of a new one.
        most_rows: so many are allowed; None for any number.

    Raises:
        TooManyRows: there are more.
        InputError: the first condition that is not met.
    """
    stamp = check_input(path)
    split_by = _choose_delimiter(path, url_column, caption_column, delimiter)
    with open_source(path) as source:
        records = source.records(split_by)
        header = next(records, None)
        if header is None:
            raise InputError(f"{path}: the file is empty; it needs a header line with column names")
        if not header.cells:
            raise InputError(f"{path}: line 1: the line is empty; it must be the header")
        where = f"{path}: line 1"
        url, caption = find_columns(header.cells, url_column, caption_column, where)
        rows = longest = 0
        for record in records:
            rows += 1
            if most_rows is not None and rows > most_rows:
                raise TooManyRows(f"{path}: the file has more than {most_rows:,} rows; split it")
            longest = max(longest, len(record.raw))
        dialect = Dialect(split_by, header.terminator or "\n", source.bom)
        sha256 = source.sha256
    dropped = _dropped(where, header, (url, caption), details=details, overwrite=overwrite)
    return Survey(
        path=path,
        dialect=dialect,
        header=header,
        url=url,
        caption=caption,
        layout=Layout(split_by, dialect.terminator, len(header.cells), details, dropped),
        rows=rows,
        longest=longest,
        sha256=sha256,
        stamp=stamp,
        notes=_notes(header, url, caption, dropped, None if delimiter is not None else split_by),
    )


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


def _choose_delimiter(
    path: Path, url: str | None, caption: str | None, delimiter: str | None
) -> str:
    if delimiter is not None:
        return check_delimiter(delimiter)
    with open_source(path) as source:
        return sniff_delimiter(source.sample(), url, caption)


def _dropped(
    where: str, header: Record, read: tuple[Column, Column], *, details: bool, overwrite: bool
) -> frozenset[int]:
    names = new_columns(details)
    found = [i for i, name in enumerate(header.cells) if name in names]
    if not found:
        return frozenset()
    listed = " and ".join(repr(header.cells[i]) for i in found)
    for column in read:
        if column.index in found:
            raise InputError(
                f"{where}: the column {column.name!r} is read, and the output has a new one "
                "of that name; rename it in the header"
            )
    if not overwrite:
        raise InputError(
            f"{where}: the header has {listed} already; rename that in the header, or let "
            "the new column take its place with --overwrite"
        )
    return frozenset(found)


def _notes(
    header: Record, url: Column, caption: Column, dropped: frozenset[int], sniffed: str | None
) -> tuple[str, ...]:
    notes = [
        f"taking {column.name!r} as the column of {what}; {option} chooses another"
        + (f" (such as {', '.join(map(repr, column.others))})" if column.others else "")
        for column, what, option in (
            (url, "image URLs", "--url-column"),
            (caption, "captions", "--caption-column"),
        )
        if column.guessed
    ]
    if sniffed is not None and sniffed != ",":
        notes.append(f"taking {name_delimiter(sniffed)} as the delimiter")
    if dropped:
        names = ", ".join(repr(header.cells[i]) for i in sorted(dropped))
        notes.append(f"leaving out the input's own {names}")
    return tuple(notes)
