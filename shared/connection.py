"""What librdkafka says of its connections: logged for people, and kept to explain why one fails."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError

from pairscore.errors import EnvironmentFault
from shared.settings import KafkaSettings

_log = logging.getLogger(__name__)
_REPEAT_SECONDS: Final = 10.0
_REFUSED: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
# How librdkafka hints at a listener that speaks another protocol than is spoken to it.
_SECURITY: Final = re.compile(r"\b(SSL|SASL|security\.protocol)\b")
_HUNG_UP: Final = re.compile(r"\b(Send failed|Receive failed|Disconnected)\b")
_SINCE: Final = re.compile(
    r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)"
)
# What is told in other ways too: to `on_error`, or by the calls of a client that is no longer one.
_TOLD: Final = ("FAIL ", "GETPID ", "TXNERR ", "FATAL ")
_FENCED: Final = tuple(
    KafkaError(code).str()
    for code in (
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    )
)
_BROKER: Final = re.compile(r"(?:\w+://)?(?P<address>[^ ]+)/(?P<id>bootstrap|\d+): ")


def describe(error: KafkaError) -> str:
    """What librdkafka says, in one line, without since when and how often."""
    return " ".join(_SINCE.sub("", error.str()).split())


class _Lines(logging.Filter):
    """Lets a line of librdkafka through once in 10 s, and none that is told in other ways too."""

    def __init__(self, logger: logging.Logger, quiet: Callable[[], bool]) -> None:
        super().__init__()
        self._logger = logger
        self._quiet = quiet
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        if line.startswith(_TOLD) or (line.startswith("ADDPARTS ") and line.endswith(_FENCED)):
            return False
        if self._quiet() and not self._logger.isEnabledFor(logging.DEBUG):
            return False
        now = time.monotonic()
        self._seen = {k: t for k, t in self._seen.items() if now - t < _REPEAT_SECONDS}
        return self._seen.setdefault(line, now) == now


@dataclass(slots=True)
class Connection:
    """What is known of the connections to Kafka; one object serves all clients of a process.

    Until Kafka was `reached`, what is said of them is of interest only to those who look for more:
    why it cannot be is said in one line, by `fault`.
    """

    settings: KafkaSettings
    last: KafkaError | None = None
    refused: KafkaError | None = None
    reached: bool = False
    logger: logging.Logger = field(init=False)
    _logged: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # One of its own, not one by name: a filter on that would outlive the connection.
        self.logger = logging.Logger("librdkafka")  # noqa: LOG001
        self.logger.parent = _log
        self.logger.addFilter(_Lines(self.logger, lambda: not self.reached))

    def on_error(self, error: KafkaError) -> None:
        """Take note (librdkafka's error_cb); the same kind is logged every 10 s at most."""
        if self.last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error
        if error.code() in _REFUSED:
            self.refused = error
        now = time.monotonic()
        if now - self._logged.get(error.code(), -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            self._logged[error.code()] = now
            level = logging.WARNING if self.reached else logging.DEBUG
            _log.log(level, "kafka: %s", describe(error))

    def fault(self, error: KafkaError | None = None) -> EnvironmentFault:
        """Why Kafka cannot be worked with, in one line that names the setting."""
        where = self.settings.bootstrap_servers
        why = self.refused or self.last or error
        said = f" ({_BROKER.sub('', describe(why), count=1)})" if why is not None else ""
        if self.refused is not None or _SECURITY.search(said):
            return EnvironmentFault(
                f"setting PAIRSCORE_KAFKA__PROPERTIES: Kafka at {where} refused the connection"
                f"{said}; check security.protocol, the user and the password in it"
            )
        if (advertised := self._advertised()) is not None:
            return EnvironmentFault(
                f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: Kafka answers at {where}, and tells "
                f"clients to go on to {advertised}, where no broker can be reached from here{said};"
                " correct advertised.listeners in the broker's configuration"
            )
        hung_up = self.last is not None and (
            # Something listens there, or there were another error.
            self.last.code() == KafkaError._ALL_BROKERS_DOWN or _HUNG_UP.search(said)
        )
        if hung_up:
            return EnvironmentFault(
                f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: what listens at {where} does not "
                "answer as Kafka does; correct the address, or if that is Kafka, set what it wants "
                "of TLS and login in PAIRSCORE_KAFKA__PROPERTIES"
            )
        return EnvironmentFault(
            f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: no Kafka broker answers at {where}{said};"
            " start one, or correct the address"
        )

    def _advertised(self) -> str | None:
        """The address of a broker that cannot be reached, which only Kafka can have told us."""
        found = None if self.last is None or self.reached else _BROKER.match(self.last.str())
        if found is None or found["id"] == "bootstrap":
            return None
        given = {each.strip().rpartition("//")[2] for each in self._bootstrap}
        return None if found["address"] in given else found["address"]

    @property
    def _bootstrap(self) -> list[str]:
        return self.settings.bootstrap_servers.split(",")
