"""Requests and answers over one session of requests', sent again where that helps and is safe."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from pairscore import __version__
from pairscore.client.answers import Fields
from pairscore.client.bodies import Body
from pairscore.client.errors import ApiError, NoAnswer
from pairscore.client.retries import Repeat, Retries, passes, retry_after
from pairscore.errors import EnvironmentFault, InputError, PairscoreError

T = TypeVar("T")
Params: TypeAlias = Mapping[str, str | int] | None

_MOST_CHARS: Final = 500
_NONE: Final[frozenset[int]] = frozenset()


class Transport:
    """Where the API is, with what key, and how long to try."""

    def __init__(self, url: str, key: str | None, timeout: float, retries: Retries) -> None:
        """Nothing is sent yet.

        Raises:
            InputError: the URL or the key is none; neither is quoted, since both may be secret.
        """
        self.url: Final = _checked(url)
        self.timeout: Final = timeout
        self.retries: Final = retries
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter())
        # As an object, so that ~/.netrc has no say, and the session's headers have no key.
        self._session.auth = _Bearer(key)
        self._session.headers["User-Agent"] = f"pairscore/{__version__}"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ask(
        self,
        method: str,
        path: str,
        read: Callable[[Fields], T],
        *,
        repeat: Repeat = Repeat.ANY,
        also: frozenset[int] = _NONE,
        body: Body | None = None,
        json: object = None,
        params: Params = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
    ) -> T:
        """Send a request until it is answered; what `read` makes of the JSON in the answer.

        Raises:
            ApiError, NoAnswer: as `Tries.failed`.
        """

        def once() -> T:
            with self.open(
                method,
                path,
                body=body,
                json=json,
                params=params,
                headers=headers,
                read_timeout=read_timeout,
            ) as response:
                return self.read(response.json, read)

        return self.trying(once, repeat, also)

    def trying(
        self, once: Callable[[], T], repeat: Repeat = Repeat.ANY, also: frozenset[int] = _NONE
    ) -> T:
        """What `once` gives when it succeeds; raises as `Tries.failed`."""
        tries = self.tries(repeat, also)
        while True:
            try:
                return once()
            except (ApiError, NoAnswer) as error:
                tries.failed(error)

    def tries(self, repeat: Repeat = Repeat.ANY, also: frozenset[int] = _NONE) -> "Tries":
        """As many tries as may be had."""
        return Tries(self.retries, repeat, also)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        json: object = None,
        params: Params = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
    ) -> Iterator[requests.Response]:
        """Send a request once; its answer, which is read in the block.

        Raises:
            ApiError: it is not answered with 2xx.
            NoAnswer: it is not answered, or the answer breaks off.
            EnvironmentFault: the two do not agree about TLS.
            InputError: the body is in a file that cannot be read.
        """
        timeout = (self.timeout, self.timeout if read_timeout is None else read_timeout)
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = body.media_type
        try:
            with nullcontext() if body is None else body.open() as data:
                response = self._session.request(
                    method,
                    self.url + path,
                    data=data,
                    json=json,
                    params=params,
                    headers=sent,
                    timeout=timeout,
                    stream=True,
                    allow_redirects=False,
                )
            with response:
                if not 200 <= response.status_code < 300:
                    raise _refused(response)
                yield response
        except requests.exceptions.SSLError as error:
            raise EnvironmentFault(f"{self.url}: TLS failed: {_why(error)}") from None
        except requests.RequestException as error:
            raise NoAnswer(
                f"{self.url}: {method} {path.partition('?')[0]}: no whole answer: {_why(error)}",
                sent=not _never_connected(error),
            ) from None

    def read(self, json: Callable[[], Any], read: Callable[[Fields], T]) -> T:
        """What `read` makes of JSON.

        Raises:
            NoAnswer: it is none, as of an answer that was cut short.
            PairscoreError: it says what this version does not know.
        """
        try:
            found = json()
        except ValueError:
            raise NoAnswer(f"{self.url}: the answer is no JSON", sent=True) from None
        try:
            return read(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PairscoreError(
                f"{self.url}: pairscore {__version__} cannot tell what the answer says ({error}); "
                "is it pairscore's, and is there a newer client?"
            ) from None


class Tries:
    """Counts what failed in a row, and waits before the next try."""

    def __init__(self, retries: Retries, repeat: Repeat, also: frozenset[int]) -> None:
        self._retries = retries
        self._repeat = repeat
        self._also = also
        self.succeeded()

    def succeeded(self) -> None:
        """Count from nothing."""
        self._failures = 0
        self._since = time.monotonic()

    def failed(self, error: ApiError | NoAnswer) -> None:
        """Wait before the next try.

        Raises:
            ApiError, NoAnswer: `error`, where there is to be no other.
        """
        # Where it comes from has the request, and so the key in its headers.
        error.__context__ = error.__traceback__ = None
        self._failures += 1
        if not passes(error, self._repeat, self._also):
            raise error
        asked = error.retry_after if isinstance(error, ApiError) else None
        spent = time.monotonic() - self._since
        # Spreads clients that failed together; nobody has to be kept from guessing it.
        delay = self._retries.wait(self._failures, spent, asked, random.random())  # noqa: S311
        if delay < 0:
            raise error
        time.sleep(delay)


class _Adapter(HTTPAdapter):
    def close(self) -> None:
        """Close the connections, which urllib3 would leave to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 (no dict: it cannot be iterated over)
                manager.pools[key].close()
        super().close()


class _Bearer(requests.auth.AuthBase):
    def __init__(self, key: str | None) -> None:
        key = None if key is None else key.strip()
        if key is not None and not (key.isascii() and key.isprintable() and key):
            raise InputError("the API key has characters that no key has")
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not ("@" in parts.netloc or parts.query or parts.fragment)
        )
    except ValueError:
        usable = False
    if not usable:
        raise InputError(
            "the URL of the API must be such as https://host or http://host:8080, without a user, "
            "a password or a query"
        )
    return url.rstrip("/")


def _refused(response: requests.Response) -> ApiError:
    problem: Any = None
    if "json" in response.headers.get("Content-Type", ""):
        try:
            problem = response.json()
        except ValueError:
            problem = None
    if not isinstance(problem, dict):
        problem = {}
    said = problem.get("detail") or response.reason or "the API refused"
    row, line = problem.get("row"), problem.get("line")
    return ApiError(
        status=response.status_code,
        detail=_line(said),
        type=str(problem.get("type", "")),
        title=str(problem.get("title", "")),
        request_id=_line(problem.get("request_id") or response.headers.get("X-Request-Id", "")),
        row=row if isinstance(row, int) else None,
        line=line if isinstance(line, int) else None,
        retry_after=retry_after(response.headers.get("Retry-After")),
    )


def _never_connected(error: BaseException) -> bool:
    kinds = (requests.exceptions.ConnectTimeout, NewConnectionError, ConnectTimeoutError)
    return any(isinstance(each, kinds) for each in _causes(error))


def _why(error: BaseException) -> str:
    """The innermost of an exception's causes, in a line."""
    *_, last = _causes(error)
    if isinstance(last, OSError) and last.strerror:
        return last.strerror
    return _line(last) or type(last).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it wraps, in whichever way."""
    found: object = error
    while isinstance(found, BaseException):
        yield found
        inner = (getattr(found, "reason", None), *reversed(found.args), found.__cause__)
        found = next((each for each in inner if isinstance(each, BaseException)), None)


def _line(text: object) -> str:
    return " ".join(str(text).split())[:_MOST_CHARS]
