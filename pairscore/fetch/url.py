"""Image URLs: what a cell must look like to be asked for, and the form it is asked in.

Pure. `parse_url` is lenient where browsers are (spaces and letters outside ASCII in a path,
international host names) and refuses what no server could answer.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote, urlsplit

import idna

from pairscore.pair import Failure, Reason

MAX_CHARACTERS = 8192

# RFC 3986's reserved and unreserved characters, and "%" so that what is encoded stays as it is.
_KEPT = "!#$%&'()*+,/:;=?@[]~-._"
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_LABEL_LIMIT = 63
_DETAIL_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in the form it is asked in: ASCII, without a fragment.

    `host` is lower case; it is what the limit of connections per host goes by.
    """

    text: str
    host: str


def parse_url(cell: str) -> Url | Failure:
    """The URL in a cell, or an `invalid_url` failure that says what is wrong with it."""
    text = cell.strip()
    complaint = _first_complaint(text)
    if complaint:
        return _invalid(complaint)
    try:
        parts = urlsplit(text)
        port = parts.port
        name = parts.hostname or ""
    except ValueError as error:
        return _invalid(str(error)[:_DETAIL_LIMIT])
    if parts.scheme.lower() not in ("http", "https"):
        scheme = parts.scheme[:_DETAIL_LIMIT] or "no scheme"
        return _invalid(f"{scheme}: only http and https are fetched")
    if not name:
        return _invalid("no host")
    if port == 0:
        return _invalid("port 0")
    user, at, place = parts.netloc.rpartition("@")
    # Brackets hold IPv6 addresses; nothing resolves RFC 3986's other use of them.
    host = _ascii_host(name) if place.startswith("[") == (":" in name) else None
    if host is None:
        return _invalid(f"{name[:80]!r} is no host name")
    authority = f"[{host}]" if ":" in host else host
    if port is not None:
        authority += f":{port}"
    # libcurl takes the host from behind the first "@".
    authority = _encode(user).replace("@", "%40") + at + authority
    target = _encode(parts.path or "/") + (f"?{_encode(parts.query)}" if parts.query else "")
    return Url(text=f"{parts.scheme.lower()}://{authority}{target}", host=host)


def _first_complaint(text: str) -> str | None:
    if not text:
        return "empty"
    if len(text) > MAX_CHARACTERS:
        return f"{len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed"
    control = _CONTROL.search(text)
    if control:
        return f"control character {control[0]!r} inside"
    return None


def _ascii_host(name: str) -> str | None:
    if ":" in name:
        try:
            return str(IPv6Address(name)) if "%" not in name else None
        except ValueError:
            return None
    if not name.isascii():
        try:
            # UTS 46 mapping is what browsers do; the package follows IDNA 2008 (RFC 5891) from
            # there.
            name = idna.encode(name, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None
    labels = name.removesuffix(".").split(".")
    if not _HOST.fullmatch(name) or any(not 0 < len(label) <= _LABEL_LIMIT for label in labels):
        return None
    return name.lower()


def _encode(part: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", part), safe=_KEPT, errors="replace")


def _invalid(detail: str) -> Failure:
    return Failure(Reason.INVALID_URL, detail)
