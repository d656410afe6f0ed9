"""What a site's robots.txt wants of us: RFC 9309, with the patterns and their order by protego.

Pure, and made for what servers send: any bytes amount to rules. Which groups are ours is found out
here. Protego would take a group for ours whose name ours begins with, and gives every agent of a
group its own copy of each rule: 500 KiB can be made to cost it gigabytes.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Final

from protego import Protego

from pairscore.fetch.request import Fetched, FetchResult
from pairscore.fetch.url import Url
from pairscore.pair import Failure, Reason

_HOUR: Final = 3_600.0
_LEAST: Final = _HOUR
_MOST: Final = 24 * _HOUR  # RFC 9309 section 2.4
_UNREACHABLE: Final = 600.0
# What went wrong on our side says nothing of the site; long enough to answer the rows that wait.
_UNASKED: Final = 1.0
_PARSED_BYTES: Final = 500 * 1024  # RFC 9309 section 2.5
_LONGEST_DELAY: Final = 60.0
# What parsed rules take, as measured: less than this, unless each has a wildcard and an end.
_BYTES_PER_RULE: Final = 600
_BYTES_PER_CHARACTER: Final = 32

_EVERYONE: Final = "*"
_OWN_NAME: Final = "pairscore"
_PRODUCT: Final = re.compile(r"(?:Mozilla/\S+ \(compatible; )?([A-Za-z0-9_.-]+)")
_DEFAULT_PORT: Final = {"http": ":80", "https": ":443"}
_AGENT_LINE: Final = re.compile(r"user[-_ ]?agent(?:\s*:\s*|\s+)(.*)", re.IGNORECASE)
# With the misspellings that protego, like Google's parser, takes for "disallow".
_RULE_LINE: Final = re.compile(
    r"(?:allow|di[as]{1,3}l{1,2}[oa]w|crawl[- ]delay)(?![\w-])", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What one origin wants of one agent; without anything said, all is allowed.

    `delay` is how many seconds it wants between two requests (`Crawl-delay`), 60 at most, None
    where it says nothing. `size` is about how many bytes this takes.
    """

    delay: float | None = None
    size: int = 0
    _parsed: Protego | None = field(default=None, repr=False)
    _refusal: Failure | None = None

    def allows(self, url: Url) -> bool:
        """Whether `url`, which is one of the origin, may be asked for."""
        return self.refusal(url) is None

    def refusal(self, url: Url) -> Failure | None:
        """Why `url` may not be asked for; None where it may."""
        if self._refusal is not None or self._parsed is None:
            return self._refusal
        # No rule is about the authority, which may have a password in it.
        target = url.text.split("/", 3)[3]
        if self._parsed.can_fetch(f"http://host/{target}", _EVERYONE):
            return None
        return Failure(Reason.DISALLOWED, "robots.txt")


def product_token(user_agent: str | None) -> str:
    """The name that a `User-Agent` goes by in robots.txt: "x-bot" of "x-bot/2 (+mailto:a@b)".

    Of "Mozilla/5.0 (compatible; x-bot/2)" it is "x-bot" too; without any, "pairscore".
    """
    found = _PRODUCT.match(user_agent or "")
    return found[1] if found else _OWN_NAME


def origin_of(url: Url) -> str:
    """Scheme, host and port, which is left out where it is the scheme's own: `https://host:8443`.

    A robots.txt is about its origin (RFC 9309 section 2.3), not about all that is on a host.
    """
    scheme, _, authority, _ = url.text.split("/", 3)
    place = authority.rpartition("@")[2]
    return f"{scheme}//{place.removesuffix(_DEFAULT_PORT[scheme[:-1]])}"


def robots_url(url: Url) -> Url:
    """Where the robots.txt that `url` is subject to is to be had; nobody's password is in it."""
    return Url(f"{origin_of(url)}/robots.txt", url.host)


def read_rules(result: FetchResult, agent: str) -> tuple[Rules, float]:
    """What asking for a robots.txt has come to for `agent`, and the seconds that is believed for.

    - A body says what it says, for as long as its server says, one hour to a day.
    - What may pass (5xx, 429, no connection) is "unreachable" (RFC 9309 section 2.3.1.4): all is
      refused for ten minutes, by a failure that may be tried again.
    - A file over the cap is there and was not read: all is refused, for a day.
    - Anything else (404, other statuses, endless redirects, a name that does not exist) is
      "unavailable" (section 2.3.1.3): all is allowed for a day, and a row that cannot be had either
      says why by itself.
    - A request that was never made, for a defect or for want of a turn, says nothing of the site:
      it is every row's failure, for a second.
    """
    if isinstance(result, Fetched):
        said = result.origin.lifetime
        lifetime = _MOST if said is None else min(max(said, _LEAST), _MOST)
        return parse_rules(result.body, agent), lifetime
    if not isinstance(result, Failure):
        return Rules(), _LEAST  # "not modified", which nobody has asked for
    if result.deferred or result.reason is Reason.INTERNAL:
        return Rules(_refusal=replace(result, attempts=0)), _UNASKED
    if result.retryable or result.reason is Reason.TOO_LARGE:
        refusal = Failure(
            Reason.DISALLOWED, f"robots.txt: {result.error}", retryable=result.retryable
        )
        return Rules(_refusal=refusal), _UNREACHABLE if result.retryable else _MOST
    return Rules(), _MOST


def parse_rules(body: bytes, agent: str) -> Rules:
    """What a robots.txt says to `agent`; its first 500 KiB count, whole lines of them.

    What is no robots.txt, such as a page that says that there is none, has no rules.
    """
    lines = _lines_for(agent, _text(body))
    if not lines:
        return Rules()
    try:
        parsed = Protego.parse("\n".join((f"User-agent: {_EVERYONE}", *lines)))
        delay = parsed.crawl_delay(_EVERYONE)
    # Somebody else's parser, strangers' bytes: the fetch thread must not end by them.
    except Exception:  # noqa: BLE001
        return Rules()
    size = _BYTES_PER_RULE * len(lines) + _BYTES_PER_CHARACTER * sum(map(len, lines))
    return Rules(min(delay, _LONGEST_DELAY) if delay else None, size, parsed)


def _text(body: bytes) -> str:
    if len(body) > _PARSED_BYTES:
        body = body[:_PARSED_BYTES]
        # Half of "Disallow: /private" is "Disallow: /".
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r"), 0)]
    return body.decode("utf-8-sig", errors="replace")


def _lines_for(agent: str, text: str) -> list[str]:
    """The rules of all groups of `agent`, or those for everyone where it has none.

    RFC 9309 section 2.2.1. Lines that are neither agents nor rules are as if they were not there.
    """
    ours, everyone = agent.lower(), _EVERYONE
    groups: dict[str, list[str]] = {}
    members: set[str] = set()
    begun = False
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        if named := _AGENT_LINE.fullmatch(line):
            if begun:
                members, begun = set(), False
            name = _name(named[1])
            if name in (ours, everyone):
                members.add(name)
                groups.setdefault(name, [])
        elif _RULE_LINE.match(line):
            begun = True
            for name in members:
                groups[name].append(line)
    return groups.get(ours, groups.get(everyone, []))


def _name(value: str) -> str:
    """The product token in the value of an agent line, without what is often put behind it."""
    token = value.split(maxsplit=1)[0].partition("/")[0].lower() if value else ""
    return token if token == _EVERYONE else token.strip(_EVERYONE)
