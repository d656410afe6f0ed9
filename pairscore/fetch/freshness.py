"""How long a response stays fresh, and by what its server can be asked whether it still holds.

Pure, and made for what servers send: fields may be missing, repeated, malformed or contradictory,
and any of it ends in a value. Source: RFC 9111 section 4.2, read as a private cache, so that
`s-maxage` and `private` say nothing; RFC 9110 sections 5.6.7 and 8.8 for dates and validators.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

Fields: TypeAlias = Mapping[str, Sequence[str]]
"""The values of a response's header fields by lower-case name, in the order that they came in."""

_GREATEST: Final = 2.0**31  # RFC 9111 section 1.2.2: what any larger number is taken for
_HEURISTIC: Final = 0.1  # of the time since the last change (RFC 9111 section 4.2.2)
_ETAG_LIMIT: Final = 256
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
_DIRECTIVE: Final = re.compile(r'([^\s,="]+)(?:=("(?:[^"\\]|\\.)*"|[^\s,"]*))?')

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_MONTH: Final = f"({'|'.join(_MONTHS)})"
_TIME: Final = "([0-9]{2}):([0-9]{2}):([0-5][0-9]|60)"
_FIXDATE: Final = re.compile(f"[A-Z][a-z]{{2}}, ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_TIME} GMT")
# The obsolete forms, which RFC 9110 wants understood: RFC 850's and asctime's.
_RFC850: Final = re.compile(f"[A-Z][a-z]{{5,8}}, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_TIME} GMT")
_ASCTIME: Final = re.compile(f"[A-Z][a-z]{{2}} {_MONTH} ([ 0-9][0-9]) {_TIME} ([0-9]{{4}})")


def read_fields(lines: Iterable[bytes]) -> Fields:
    """The fields in header lines (`Name: value`), each byte a character (Latin-1)."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        fields.setdefault(name.lower(), []).append(value.strip(" \t\r\n"))
    return fields


def lifetime_left(fields: Fields, now: float) -> float | None:
    """Seconds for which the response may be used unasked; None if nothing is said or known of it.

    0.0 if it is stale, must not be kept or used unasked (`no-store`, `no-cache`), or contradicts
    itself. `now` is when it came (Unix time), which counts where it has no date of its own. Its age
    is what `Age` says; times on the way here and clocks that differ are left out.
    """
    lifetime = _lifetime(fields, now)
    return None if lifetime is None else max(0.0, lifetime - _age(fields))


def entity_tag(fields: Fields) -> str | None:
    """The ETag, strong or weak, as it was sent; None if it is none, not ASCII or too long."""
    etag = _agreed(fields, "etag")
    return etag if len(etag) <= _ETAG_LIMIT and _ETAG.fullmatch(etag) else None


def last_change(fields: Fields) -> str | None:
    """`Last-Modified` as it was sent; None if it has none of the forms of a date."""
    text = _agreed(fields, "last-modified")
    dated = _FIXDATE.fullmatch(text) or _RFC850.fullmatch(text) or _ASCTIME.fullmatch(text)
    return text if dated else None


def parse_date(text: str, now: float) -> float | None:
    """The Unix time that an HTTP date names, in any of its three forms; None if it is none.

    A year of two digits is the one that lies no more than 50 years after `now` (Unix time).
    """
    if found := _FIXDATE.fullmatch(text):
        day, month, year, *time = found.groups()
    elif found := _RFC850.fullmatch(text):
        day, month, short, *time = found.groups()
        latest = datetime.fromtimestamp(now, UTC).year + 50
        year = str(latest - (latest - int(short)) % 100)
    elif found := _ASCTIME.fullmatch(text):
        month, day, *time, year = found.groups()
    else:
        return None
    hour, minute, second = time
    # 60 is a leap second, of which Unix time knows nothing.
    clock = int(hour), int(minute), min(59, int(second))
    try:
        return datetime(int(year), _MONTHS[month], int(day), *clock, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _lifetime(fields: Fields, now: float) -> float | None:
    directives = _directives(fields.get("cache-control", ()))
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    if "max-age" in directives:
        return _max_age(directives["max-age"])
    expires, modified = fields.get("expires"), fields.get("last-modified")
    if expires is None and modified is None:
        return None
    sent = parse_date(_agreed(fields, "date"), now)
    begun = now if sent is None else sent
    if expires is not None:
        end = parse_date(_agreed(fields, "expires"), now)
        return 0.0 if end is None else end - begun
    changed = parse_date(_agreed(fields, "last-modified"), now)
    return None if changed is None else _HEURISTIC * (begun - changed)


def _directives(values: Iterable[str]) -> dict[str, set[str]]:
    """What each directive of `Cache-Control` is set to; no argument is an empty one."""
    directives: dict[str, set[str]] = {}
    for value in values:
        for name, argument in _DIRECTIVE.findall(value):
            directives.setdefault(name.lower(), set()).add(argument.strip('"'))
    return directives


def _max_age(arguments: set[str]) -> float:
    # RFC 9111 section 4.2.1: what contradicts itself or is no number is stale.
    seconds = _seconds(arguments.pop()) if len(arguments) == 1 else None
    return 0.0 if seconds is None else seconds


def _age(fields: Fields) -> float:
    # RFC 9111 section 5.1: of several the first counts, and what is no number does not.
    first = fields.get("age", ("",))[0].partition(",")[0]
    return _seconds(first.strip()) or 0.0


def _seconds(text: str) -> float | None:
    return min(float(text), _GREATEST) if text.isascii() and text.isdigit() else None


def _agreed(fields: Fields, name: str) -> str:
    """The value that all lines of a field agree on; empty without one."""
    values = fields.get(name)
    if values is None:
        return ""
    return values[0] if len(values) == 1 or len(set(values)) == 1 else ""
