"""One connection to a Redis: commands in one round trip, and scripts that it may not know yet."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from pairscore.errors import SettingsError
from pairscore.guard.guard import Unavailable

Command: TypeAlias = tuple[str | bytes | int, ...]

# Each read lets other threads run, and may have to wait for all of them.
_READ_BYTES: Final = 1_048_576


class Script:
    """A script of Lua's that a Redis runs; `sha1` is what it is called by."""

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.sha1: Final = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """A connection, opened when it is needed; belongs to one thread. All raise `Unavailable`."""

    def __init__(self, url: str, *, seconds: float) -> None:
        """`seconds` is the longest silence in an answer.

        Raises:
            SettingsError: `url` cannot be one of a Redis.
        """
        try:
            self.client: Final[Any] = redis.Redis.from_url(
                url,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                # What cannot be had at once is done without.
                retry=Retry(NoBackoff(), 0),
                max_connections=1,
                protocol=2,
                socket_read_size=_READ_BYTES,
            )
        except ValueError as error:  # which does not quote the URL: a password may be in it
            raise SettingsError(f"setting PAIRSCORE_REDIS__URL: {error}") from None

    def send(self, commands: Sequence[Command], script: Script | None = None) -> list[Any]:
        """The answers to commands, after `script` was loaded where Redis did not know it."""
        with faults():
            try:
                return self._send(commands)
            except NoScriptError:
                if script is None:
                    raise
                return self._send([("SCRIPT LOAD", script.text), *commands])[1:]

    def ping(self) -> None:
        """See whether it answers."""
        with faults():
            self.client.ping()

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(RedisError, OSError):
            self.client.close()

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        with self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute()
            return answers


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Raise `Unavailable` for whatever goes wrong with a Redis inside."""
    try:
        yield
    except ResponseError as error:
        # What follows "with args" quotes them, and a password may be among them.
        said = str(error).partition(", with args")[0]
        raise Unavailable(f"Redis refused a command: {said}") from None
    except (RedisError, OSError) as error:
        raise Unavailable(str(error) or type(error).__name__) from error


def listed(answer: object, count: int) -> list[object]:
    """The items of an answer, each of which may be anything."""
    if not isinstance(answer, list) or len(answer) != count:
        raise Unavailable(f"Redis answers {answer!r:.80}")
    return answer
