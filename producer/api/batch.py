"""A batch of rows that an SQL engine sent, and the name of its job.

The name says whose it is, which engine's, under what id, and what is in it: the same batch has the
same, and no other batch has it.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from pydantic_core import to_json

from producer.api.client import Client

_NUMBERED: Final = "n"
# As `Sender.prefix` and `Batch.of` make it.
_NAME: Final = re.compile(rf"(bigquery|snowflake)-[0-9a-f]{{32}}-[0-9a-f]{{32}}{_NUMBERED}?")


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose batch it is: which engine's, under what id of the engine's, sent by which client."""

    engine: str
    id: str
    client: Client | None

    @property
    def prefix(self) -> str:
        """What the names of this sender's jobs begin with."""
        text = f"{'' if self.client is None else self.client.name}\0{self.id}"
        return f"{self.engine}-{hashlib.sha256(text.encode()).hexdigest()[:32]}-"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that an engine sent: (url, caption), at least one, in its order.

    `numbers` are the engine's own of the rows, where these are not 0, 1, 2 and so on. `digest` is
    of the content, in hex, and `name` is the name of the job.
    """

    sender: Sender
    pairs: tuple[tuple[str, str], ...]
    numbers: tuple[int, ...] | None
    digest: str
    name: str

    @classmethod
    def of(
        cls,
        sender: Sender,
        pairs: tuple[tuple[str, str], ...],
        *,
        numbers: tuple[int, ...] | None = None,
        told: str = "",
    ) -> Self:
        """The batch with its name; `told` is whatever else makes it another one."""
        digest = hashlib.sha256(to_json((told, numbers, pairs))).hexdigest()
        numbered = "" if numbers is None else _NUMBERED
        return cls(sender, pairs, numbers, digest, f"{sender.prefix}{digest[:32]}{numbered}")


def is_batch(name: str) -> bool:
    """Whether a job is a batch of an engine's."""
    return _NAME.fullmatch(name) is not None


def is_numbered(name: str) -> bool:
    """Whether the rows of the batch of that name have numbers of the engine's own."""
    return name.endswith(_NUMBERED)  # which no hex digit is
