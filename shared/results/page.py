"""Some of a job's outcomes: as many as are read from a store at once."""

from dataclasses import dataclass
from typing import Final

from shared.messages import ScoreMessage

PAGE_BYTES: Final = 4_000_000
"""A page ends when its rows have so much text, however few they are: it is kept in memory."""


@dataclass(frozen=True, slots=True)
class Page:
    """Outcomes by row; `more` says that others may come after them, and then there is at least one.

    Fewer than were asked for are the last ones only without `more`.
    """

    outcomes: list[ScoreMessage]
    more: bool
