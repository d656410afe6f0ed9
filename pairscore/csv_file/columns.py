"""Which columns hold the image URL and the caption: by the name given, else by the usual names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pairscore.errors import InputError

URL_NAMES = (
    "url",
    "image_url",
    "image_link",
    "img_url",
    "image",
    "link",
    "src",
    "imageurl",
    "imgurl",
    "image_src",
    "img_src",
    "image_uri",
    "uri",
    "img",
    "photo_url",
    "photo_image_url",
    "picture_url",
    "thumbnail_url",
    "media_url",
    "href",
    "photo",
    "picture",
)
"""Usual names of the column of image URLs; an earlier one wins over a later one."""

CAPTION_NAMES = (
    "caption",
    "text",
    "title",
    "description",
    "alt",
    "alt_text",
    "image_caption",
    "image_description",
    "captions",
    "prompt",
    "sentence",
    "label",
    "desc",
    "name",
)
"""Usual names of the column of captions; an earlier one wins over a later one."""

_SHOWN = 20


_URL = re.compile(r"\s*https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the header: its 0-based index and exact name.

    `guessed` says that nobody named it; `others` are the columns that could have been meant too.
    """

    index: int
    name: str
    guessed: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """What a column is looked for as, and the option that names it."""

    meaning: str
    option: str
    usual: tuple[str, ...]


URL = Role("image URLs", "--url-column", URL_NAMES)
CAPTION = Role("captions", "--caption-column", CAPTION_NAMES)


def find_columns(
    header: Sequence[str], url: str | None, caption: str | None, where: str
) -> tuple[Column, Column]:
    """Find the columns of URLs and captions; a name is taken exactly, else without case and blanks.

    Raises:
        InputError: a column is missing, occurs twice, or is both; starts with `where`.
    """
    named_url = None if url is None else _named(header, url, URL, where)
    named_caption = None if caption is None else _named(header, caption, CAPTION, where)
    url_column = named_url or _guessed(header, URL, named_caption, where)
    caption_column = named_caption or _guessed(header, CAPTION, url_column, where)
    if url_column.index == caption_column.index:
        raise InputError(
            f"{where}: {URL.option} and {CAPTION.option} are both {url_column.name!r}; "
            "they must be two columns"
        )
    return url_column, caption_column


def count_found(header: Sequence[str], url: str | None, caption: str | None) -> int:
    """How many of the two columns `header` seems to have (0 to 2): a hint for the delimiter."""
    return sum(
        any(_matches(header, name) for name in ((given,) if given is not None else role.usual))
        for given, role in ((url, URL), (caption, CAPTION))
    )


def list_columns(header: Sequence[str]) -> str:
    """The columns of a header for a message, the first few of many."""
    shown = ", ".join(repr(name) for name in header[:_SHOWN])
    more = len(header) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _named(header: Sequence[str], name: str, role: Role, where: str) -> Column:
    found = _matches(header, name)
    if not found:
        raise InputError(
            f"{where}: there is no column {name!r}; the columns are {list_columns(header)}; "
            f"choose that of the {role.meaning} with {role.option}"
        )
    return Column(_only(header, found, where), header[found[0]])


def _guessed(header: Sequence[str], role: Role, taken: Column | None, where: str) -> Column:
    hits: list[list[int]] = []
    for name in role.usual:
        found = [i for i in _matches(header, name) if taken is None or i != taken.index]
        if found:
            hits.append(found)
    if not hits and any(_URL.match(name) for name in header):
        raise InputError(
            f"{where}: the first line looks like a row; it must be a header with column names, "
            "such as url,caption"
        )
    if not hits:
        raise InputError(
            f"{where}: no column has a usual name for {role.meaning}; the columns are "
            f"{list_columns(header)}; choose one with {role.option}"
        )
    index = _only(header, hits[0], where)
    others = tuple(header[i] for found in hits[1:] for i in found if i != index)
    return Column(index, header[index], guessed=True, others=others)


def _matches(header: Sequence[str], name: str) -> list[int]:
    exact = [i for i, column in enumerate(header) if column == name]
    if exact:
        return exact
    folded = _fold(name)
    return [i for i, column in enumerate(header) if _fold(column) == folded]


def _fold(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _only(header: Sequence[str], found: Sequence[int], where: str) -> int:
    if len(found) > 1:
        names = " and ".join(repr(header[i]) for i in found)
        raise InputError(
            f"{where}: the columns {names} cannot be told apart; rename one of them in the header"
        )
    return found[0]
