"""A request for a URL: what is asked for now, how it got there, and what becomes of it.

Pure. Redirects are followed here rather than by libcurl, so that where they lead has its turns, its
limit and its checks like any other host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from pairscore.fetch.freshness import entity_tag, last_change, lifetime_left, read_fields
from pairscore.fetch.url import Url, parse_url
from pairscore.pair import Failure, Reason


@dataclass(frozen=True, slots=True)
class Validators:
    """What `url` said of itself earlier, to ask whether that still holds (RFC 9110 section 13.1).

    All three are those of an `Origin`: `url` is the final one, `etag` and `last_modified` are as
    they were sent.

    Raises:
        ValueError: `etag` or `last_modified` is not printable ASCII, which no `Origin` has.
    """

    url: str
    etag: str | None
    last_modified: str | None

    def __post_init__(self) -> None:
        for value in (self.etag, self.last_modified):
            # They may come back from a store that others write to, and become header lines.
            if value is not None and not (value.isascii() and value.isprintable()):
                raise ValueError(f"{value!r} is no validator")

    @property
    def condition(self) -> tuple[str, ...]:
        """The header lines that make a GET conditional; none without a validator."""
        names = ("If-None-Match", self.etag), ("If-Modified-Since", self.last_modified)
        return tuple(f"{name}: {value}" for name, value in names if value)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a representation came from, and what was said of it there.

    `url` is the one that answered, after redirects. `etag` and `last_modified` are as they were
    sent, None where they are missing or malformed. `lifetime` is for how many seconds from now it
    may be used unasked, with no upper bound, None if nothing is known of that (`lifetime_left`).
    `robots` are the values of `X-Robots-Tag`, one for each field line.
    """

    url: str
    etag: str | None = None
    last_modified: str | None = None
    lifetime: float | None = None
    robots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body of 2xx, decoded from its content encoding, after `attempts` attempts.

    Two are equal if these are, wherever they came from.
    """

    body: bytes
    attempts: int
    origin: Origin = field(default=Origin(""), compare=False)


@dataclass(frozen=True, slots=True)
class NotModified:
    """What is known still holds, said `origin.url` after `attempts` attempts.

    `origin` has what the 304 says, and the known validators: the entity tag as it was, the time of
    the last change where it has no later one.
    """

    attempts: int
    origin: Origin


_PERMANENT: Final = frozenset({301, 308})
FetchResult: TypeAlias = Fetched | NotModified | Failure


def describe(url: str, lines: Sequence[bytes], now: float) -> Origin:
    """What the header lines of the response of `url`, received at `now` (Unix time), say of it."""
    if not lines:
        return Origin(url)
    fields = read_fields(lines)
    return Origin(
        url,
        entity_tag(fields),
        last_change(fields),
        lifetime_left(fields, now),
        tuple(fields.get("x-robots-tag", ())),
    )


def redirect_lifetime(status: int, lines: Sequence[bytes], now: float) -> float | None:
    """For how many seconds a redirect of that status holds, None for ever.

    Of one that says nothing of it, a permanent one does (RFC 9111 section 4.2.2), no other.
    """
    said = describe("", lines, now).lifetime
    return said if said is not None or status in _PERMANENT else 0.0


class Request:
    """Asks for `url` until `done` is called with the result.

    `target` is what to ask for now: `url`, or where it has led. `known` is what was said earlier by
    one of these. `attempts` counts this one; `seconds` is how long it has taken so far, without the
    waiting for turns. `is_robots` says that it is for a robots.txt, which none is asked about.
    Those that are `urgent` go first.
    """

    __slots__ = (
        "_lifetime",
        "_redirects",
        "attempts",
        "done",
        "is_robots",
        "known",
        "seconds",
        "target",
        "urgent",
        "url",
    )

    def __init__(
        self,
        url: Url,
        done: Callable[[FetchResult], None],
        known: Validators | None = None,
        *,
        is_robots: bool = False,
        urgent: bool = False,
    ) -> None:
        self.url = url
        self.done = done
        self.known = known
        self.is_robots = is_robots
        self.urgent = urgent
        self.target = url
        self.attempts = 1
        self.seconds = 0.0
        self._redirects = 0
        # For how long the redirects so far hold, in seconds; None for ever.
        self._lifetime: float | None = None

    @property
    def condition(self) -> tuple[str, ...]:
        """The header lines that make a GET of `target` conditional; none where it is not known.

        Only the very URL that gave the validators gets them back: they mean nothing to others, and
        would tell them what was asked for elsewhere.
        """
        known = self.known
        return known.condition if known is not None and known.url == self.target.text else ()

    def origin(self, lines: Sequence[bytes], now: float) -> Origin:
        """What `target` says of what it gave, for no longer than it is led to."""
        said = describe(self.target.text, lines, now)
        if said.lifetime is None or self._lifetime is None or said.lifetime <= self._lifetime:
            return said
        return Origin(said.url, said.etag, said.last_modified, self._lifetime, said.robots)

    def not_modified(self, lines: Sequence[bytes], now: float) -> NotModified | None:
        """The result of a 304 with these header lines that `target` gave at `now` (Unix time).

        None if it is of something else than what is known, by its entity tag (RFC 9111 section
        4.3.4): then the request is without a condition from now on.
        """
        said, known = self.origin(lines, now), self.known
        if known is None or (
            said.etag is not None
            and known.etag is not None
            and said.etag.removeprefix("W/") != known.etag.removeprefix("W/")
        ):
            self.known = None
            return None
        last_modified = said.last_modified or known.last_modified
        origin = Origin(said.url, known.etag, last_modified, said.lifetime, said.robots)
        return NotModified(self.attempts, origin)

    def follow(
        self, location: str, seconds: float, limit: int, lifetime: float | None = None
    ) -> Failure | None:
        """Make `location` the target, after `seconds` seconds; a failure if that may not be.

        `lifetime` is for how many seconds it is led to, None for ever.
        """
        if self._redirects >= limit:
            return Failure(Reason.TOO_MANY_REDIRECTS, f"more than {limit}")
        if lifetime is not None:
            shorter = lifetime if self._lifetime is None else min(lifetime, self._lifetime)
            self._lifetime = shorter
        target = parse_url(location)
        if isinstance(target, Failure):
            return replace(target, detail=f"redirected to {target.detail}")
        self.target = target
        self.seconds += seconds
        self._redirects += 1
        return None

    def begin_again(self) -> None:
        """Make the next attempt, from `url` on."""
        self.attempts += 1
        self.target = self.url
        self.seconds = 0.0
        self._redirects = 0
        self._lifetime = None
