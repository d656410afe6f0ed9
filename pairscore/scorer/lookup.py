"""The lookup stage: what others know of rows and of images, asked in batches, off the hot path."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty
from typing import Final

from pairscore.cache import Cache, Embedding
from pairscore.cache.shared import MOST_AT_ONCE, NOTHING, FoundUrl, SharedCache
from pairscore.fetch import Fetched
from pairscore.lanes import Lanes
from pairscore.scorer.in_flight import InFlight
from pairscore.scorer.work import ContentWork, Row

CLAIM_SECONDS: Final = 15.0
"""How long others leave an image alone that one is about to embed."""

_ASK_AGAIN_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Claim:
    """An image that was downloaded, and until when it may be somebody else's to embed."""

    content: ContentWork
    fetched: Fetched
    until: float


class LookUpStage:
    """One thread in front of a shared cache, for rows before anything and images before decoding.

    Rows and images that the cache does not know, or does not answer for, go on as they would
    without. An image that somebody else is about to embed waits for that, `CLAIM_SECONDS` at most.
    What is urgent is asked for first.
    """

    def __init__(
        self,
        shared: SharedCache,
        cache: Cache,
        in_flight: InFlight,
        *,
        begin: Callable[[Row, FoundUrl | None], None],
        score: Callable[[list[Row]], None],
        known: Callable[[ContentWork, Fetched, Embedding], None],
        decode: Callable[[ContentWork, Fetched], None],
        on_crash: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`score` goes on with rows whose image is known, `begin` with any other row.

        `known` and `decode` go on with an image.
        """
        self._shared = shared
        self._cache = cache
        self._in_flight = in_flight
        self._begin = begin
        self._score = score
        self._known = known
        self._decode = decode
        self._on_crash = on_crash
        self._clock = clock
        # Bounded by the window of who submits rows, and by the fetcher's slots.
        self._queue: Lanes[Row | _Claim | None] = Lanes()
        # With when each is to be asked for again, the first one first.
        self._others: deque[tuple[float, _Claim]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pairscore-lookup", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> None:
        """Take a row, of which something is not known here; never waits."""
        self._queue.put(row, urgent=row.urgent)

    def claim(self, content: ContentWork, fetched: Fetched) -> bool:
        """Take an image; never waits."""
        if not self._shared.available:
            return False
        claim = _Claim(content, fetched, self._clock() + CLAIM_SECONDS)
        self._queue.put(claim, urgent=content.urgent)
        return True

    def close(self) -> None:
        """End the thread; what has not begun is dropped."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        try:
            while not self._stopping:
                rows, claims = self._next()
                if rows:
                    self._look_up(rows)
                if claims:
                    self._ask_for(claims)
        # The one place where a defect of this thread is turned into the end of the scorer.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _next(self) -> tuple[list[Row], list[_Claim]]:
        """What has come, and after a while what is to be asked again."""
        rows: list[Row] = []
        claims: list[_Claim] = []
        patience = max(0.0, self._others[0][0] - self._clock()) if self._others else None
        try:
            item, _ = self._queue.get(timeout=patience)
            while item is not None:
                if isinstance(item, _Claim):
                    claims.append(item)
                else:
                    rows.append(item)
                if len(rows) >= MOST_AT_ONCE or len(claims) >= MOST_AT_ONCE:
                    break
                item, _ = self._queue.get(timeout=0.0)
        except Empty:
            pass
        now = self._clock()
        while self._others and self._others[0][0] <= now and len(claims) < MOST_AT_ONCE:
            claims.append(self._others.popleft()[1])
        return rows, claims

    def _look_up(self, rows: list[Row]) -> None:
        urls: dict[str, None] = {}
        captions: dict[str, None] = {}
        for row in rows:
            if row.image is None and not self._in_flight.has(row.url.text):
                urls[row.url.text] = None
            row.text = row.text or self._cache.caption(row.caption)
            if row.text is None:
                captions[row.caption] = None
        found = NOTHING
        if (urls or captions) and self._shared.available:
            found = self._shared.look_up(list(urls), list(captions))
        if ready := self._in_flight.learn(rows, found):
            self._score(ready)
        for row in rows:
            if row.image is None:
                self._begin(row, found.urls.get(row.url.text))

    def _ask_for(self, claims: list[_Claim]) -> None:
        answers = self._shared.claim([each.content.sha256 for each in claims], CLAIM_SECONDS)
        now = self._clock()
        for claim, answer in zip(claims, answers, strict=True):
            if not isinstance(answer, bool):
                self._known(claim.content, claim.fetched, answer)
            elif answer or now >= claim.until:
                self._decode(claim.content, claim.fetched)
            else:
                self._others.append((now + _ASK_AGAIN_SECONDS, claim))
