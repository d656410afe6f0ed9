"""What scenarios are played on, and at what length."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local import Kafka
from tests.faults.data import Row
from tests.faults.processes import Nursery


@dataclass(frozen=True, slots=True)
class Scale:
    """The short form, or the long one with all the numbers that are promised."""

    long: bool

    def of(self, short: int, long: int) -> int:
        """The number for this form."""
        return long if self.long else short

    @property
    def rows(self) -> int:
        """How many rows a scenario has."""
        return self.of(1_500, 20_000)

    @property
    def seconds(self) -> float:
        """How long the rows of a scenario may take, faults and all."""
        return self.of(180, 900)


@dataclass(frozen=True, slots=True)
class Stage:
    """What scenarios are played on.

    `pictures` is where the demo's server answers, `patience` where that of pictures which need it.
    """

    kafka: Kafka
    nursery: Nursery
    scale: Scale
    pictures: str
    patience: str
    rows: Sequence[Row]
    folder: Path
    seed: int
