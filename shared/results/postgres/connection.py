"""Connections to PostgreSQL, and why one cannot be had, in one line without a password."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from pydantic import SecretStr

from pairscore.errors import EnvironmentFault, SettingsError
from shared.shutdown import Deadline

SETTING: Final = "setting PAIRSCORE_POSTGRES_URL"
START_SECONDS: Final = 15.0
"""How long a start waits for a server that does not listen yet."""

STATEMENT_SECONDS: Final = 30.0

_TRY_SECONDS: Final = 5
# Of one try, all hosts together, so that a start ends within 30 s; a name may have two addresses.
_LONGEST_TRY_SECONDS: Final = 14
_ADDRESSES: Final = 2
_SHORTEST_SECONDS: Final = 2  # libpq takes no less
_PAUSE_SECONDS: Final = 0.5
# A server that is gone without a word is found out, even where nothing is being sent.
_DEFAULTS: Final = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
_COMING_UP: Final = ("starting up", "shutting down", "recovery")

Connection = psycopg.Connection[TupleRow]


class Address:
    """Where a database is, from a URL of libpq's; its text is without the password."""

    def __init__(self, url: SecretStr) -> None:
        """Read the URL; nothing is connected.

        A `connect_timeout` in it counts as far as a start can wait for it.

        Raises:
            SettingsError: it is none, or its `connect_timeout` is no number.
        """
        try:
            given = conninfo_to_dict(url.get_secret_value())
        except psycopg.ProgrammingError:
            # What libpq says of it quotes it, password and all.
            raise SettingsError(
                f"{SETTING}: it cannot be read as a database's address; write it as "
                "postgresql://user:password@host:5432/database"
            ) from None
        self._parameters: dict[str, Any] = {
            **_DEFAULTS,
            **given,
            "connect_timeout": _connect_seconds(given),
            "client_encoding": "utf8",
        }
        host = given.get("host") or given.get("hostaddr") or "the default host"
        port = f":{given['port']}" if given.get("port") else ""
        database = f"/{given['dbname']}" if given.get("dbname") else ""
        self._where = f"{host}{port}{database}"

    def __str__(self) -> str:
        return f"PostgreSQL at {self._where}"

    def connect(self, name: str, statement_seconds: float = STATEMENT_SECONDS) -> Connection:
        """Connect once; every statement is a transaction of its own unless one is begun.

        `name` is what the server's list of sessions says of this one. A statement that takes longer
        than `statement_seconds` fails.

        Raises:
            psycopg.OperationalError: that was not possible.
        """
        connection = psycopg.connect(
            **{"application_name": name, **self._parameters}, autocommit=True
        )
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        try:
            for setting, value in (
                ("TimeZone", "UTC"),
                ("statement_timeout", f"{statement_seconds * 1000:.0f}"),
            ):
                connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def connect_at_start(
        self,
        name: str,
        statement_seconds: float = STATEMENT_SECONDS,
        *,
        seconds: float = START_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> Connection:
        """Connect; wait a little for a server that does not listen yet, for none that refuses.

        Raises:
            EnvironmentFault: it cannot be reached, or refuses.
        """
        deadline = Deadline(seconds, clock)
        while True:
            try:
                return self.connect(name, statement_seconds)
            except psycopg.OperationalError as error:
                said = one_line(error)
                refuses = "FATAL" in said and not any(word in said for word in _COMING_UP)
                if refuses or deadline.passed:
                    raise self.fault(error) from None
            pause(min(_PAUSE_SECONDS, deadline.left()))

    def fault(self, error: psycopg.Error) -> EnvironmentFault:
        """That it cannot be worked with, and what the server or libpq says of it."""
        return EnvironmentFault(
            f"{SETTING}: {self} cannot be used: {one_line(error)}; start it, or correct the "
            "address, the user or the password"
        )


def _connect_seconds(given: Mapping[str, Any]) -> int:
    """How long to wait for each host: what was given, but not for ever (0), and not too long."""
    value = given.get("connect_timeout") or _TRY_SECONDS
    try:
        asked = int(value)
    except ValueError:
        raise SettingsError(
            f"{SETTING}: connect_timeout is {value!r}, and must be whole seconds"
        ) from None
    hosts = str(given.get("host") or given.get("hostaddr") or "").count(",") + 1
    most = max(_SHORTEST_SECONDS, _LONGEST_TRY_SECONDS // (_ADDRESSES * hosts))
    return min(asked, most) if asked > 0 else most


def one_line(error: psycopg.Error) -> str:
    """What an error says, the hints below it included; psycopg puts no password into it."""
    return " ".join(str(error).split())
