"""Rows to outcomes in order: malformed rows never reach the scorer, and keep their place."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeAlias

from pairscore.csv_file.layout import malformation
from pairscore.csv_file.records import Record
from pairscore.pair import Failure, Outcome, Pair

ScorePairs: TypeAlias = Callable[[Iterable[Pair]], Iterator[Outcome]]
"""Gives one outcome per pair, in order; may read ahead, within a bound of its own."""

MALFORMED_RUN = 10_000
"""Where so many malformed rows wait, the scorer is let finish, so that no more need be kept."""


class OrderedRows:
    """Puts each row together with its outcome.

    Rows that are read and not yet written are at most those of the scorer's own window and
    `MALFORMED_RUN` malformed ones, in all: a scorer that waits for its next pair keeps every
    malformed row before that pair waiting too, so the input is handed to it in pieces where too
    many of them have come to wait.
    """

    def __init__(
        self, rows: Iterator[Record], *, width: int, url: int, caption: int, score: ScorePairs
    ) -> None:
        """Take rows of `width` cells, the URL and caption at these 0-based indices."""
        self._rows = rows
        self._width = width
        self._url = url
        self._caption = caption
        self._score = score
        self._waiting: deque[tuple[Record, Failure | None]] = deque()
        self._malformed_waiting = 0
        self._piece_read = False
        self._all_read = False

    def outcomes(self) -> Generator[tuple[Record, Outcome], None, None]:
        """Give every row with its outcome, in the order of the rows.

        Raises:
            RuntimeError: the scorer gave more or fewer outcomes than it got pairs, a defect of its.
        """
        while not self._all_read:
            self._piece_read = False
            scored = self._score(self._pairs())
            try:
                for outcome in scored:
                    yield from self._malformed()
                    if not self._waiting:
                        raise RuntimeError("the scorer gave more outcomes than it got pairs")
                    record, _ = self._waiting.popleft()
                    yield record, outcome
                    yield from self._malformed()
            finally:
                if isinstance(scored, Generator):
                    scored.close()
            yield from self._malformed()
            if self._waiting or not self._piece_read:
                raise RuntimeError("the scorer gave fewer outcomes than there are pairs")

    def _pairs(self) -> Iterator[Pair]:
        for record in self._rows:
            failure = malformation(len(record.cells), self._width)
            self._waiting.append((record, failure))
            if failure is None:
                yield Pair(record.cells[self._url], record.cells[self._caption])
            else:
                self._malformed_waiting += 1
                if self._malformed_waiting == MALFORMED_RUN:
                    self._piece_read = True
                    return
        self._piece_read = self._all_read = True

    def _malformed(self) -> Iterator[tuple[Record, Outcome]]:
        """The malformed rows that no other row has to be written before."""
        while self._waiting and (failure := self._waiting[0][1]) is not None:
            self._malformed_waiting -= 1
            yield self._waiting.popleft()[0], failure
