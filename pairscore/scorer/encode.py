"""The encode stage: batches of images and captions through the model, and their scores."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np

from pairscore.cache import Cache, CaptionEntry
from pairscore.cache.stats import Kind
from pairscore.clip import ClipModel
from pairscore.lanes import Lanes
from pairscore.pair import Failure, Outcome, Reason, Score
from pairscore.scorer.in_flight import InFlight
from pairscore.scorer.slots import Slots
from pairscore.scorer.work import ContentWork, Row

T = TypeVar("T")

_MAX_ROWS: Final = 1024
_LINGER: Final = 0.010
_HURRY_SECONDS: Final = 10.0
_SHORT_SECONDS: Final = 0.2
_LEAST_PART: Final = 8
_KEPT: Final = 0.8


@dataclass(slots=True)
class _Batch:
    images: list[ContentWork] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def add(self, item: ContentWork | list[Row]) -> None:
        if isinstance(item, ContentWork):
            self.images.append(item)
        else:
            self.rows += item

    def __bool__(self) -> bool:
        return bool(self.images or self.rows)


class _Limit:
    """How many items a batch may have: `most`, or in a hurry as many as are soon done.

    That is by how long those of late took, the slowest above all; `least` in any case.
    """

    def __init__(self, most: int, least: int) -> None:
        self._most = most
        self._least = least
        self._seconds = math.inf  # that an item takes

    def now(self, *, hurry: bool) -> int:
        if not hurry:
            return self._most
        return min(self._most, max(self._least, int(_SHORT_SECONDS / self._seconds)))

    @contextmanager
    def measuring(self, count: int) -> Iterator[None]:
        began = time.monotonic()
        yield
        if count < self._least:  # which says little: not all cores had one
            return
        seconds = (time.monotonic() - began) / count
        before = 0.0 if math.isinf(self._seconds) else self._seconds
        self._seconds = max(seconds, _KEPT * before)


def _split(items: list[T], at: int) -> tuple[list[T], list[T]]:
    return items[:at], items[at:]


class EncodeStage:
    """One thread in front of the model.

    A batch is what has come in meanwhile, up to `batch_size` images; while more are on their way it
    waits up to 10 ms for them, so that the model is not fed one by one. What is urgent is not
    waited with, and has batches of its own, which overtake one that waits for more. It may have to
    wait for the batch before: those of other rows are short for 10 s after something urgent came.
    """

    def __init__(
        self,
        *,
        model: ClipModel,
        batch_size: int,
        in_flight: InFlight,
        cache: Cache,
        slots: Slots,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._model = model
        least = max(1, batch_size // _LEAST_PART)
        self._most_images = _Limit(batch_size, least)
        self._most_captions = _Limit(_MAX_ROWS, least)
        self._hurry_until = 0.0
        self._in_flight = in_flight
        self._cache = cache
        self._slots = slots
        self._on_crash = on_crash
        # Images are bounded by `slots`, rows whose image is known by the window of who submits
        # them.
        self._queue: Lanes[ContentWork | list[Row] | None] = Lanes()
        self._begun = _Batch()
        self._due = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pairscore-encode", daemon=True)
        self._thread.start()

    def put(self, item: ContentWork | list[Row]) -> None:
        """Take a decoded image, or rows whose image is known; never waits."""
        urgent = item.urgent if isinstance(item, ContentWork) else any(r.urgent for r in item)
        self._queue.put(item, urgent=urgent)

    def hurry(self) -> None:
        """Have batches of what is not urgent be short for a while, as something urgent comes."""
        self._hurry_until = time.monotonic() + _HURRY_SECONDS

    def close(self) -> None:
        """End the thread after the batch it is at; what has not begun is dropped."""
        self._stopping = True
        self._queue.put(None, urgent=True)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._step()
        # The one place where a defect of this thread is turned into the end of the scorer.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _step(self) -> None:
        """Take what comes next, and score what is then a batch."""
        try:
            item, urgent = self._queue.get(timeout=self._patience())
        except queue.Empty:
            self._score_begun()
            return
        if item is None:
            return
        if urgent:
            self._score_urgent(item)
            return
        if not self._begun:
            self._due = time.monotonic() + _LINGER
        self._begun.add(item)
        if self._is_full(self._begun, hurry=self._hurried):
            self._score_begun()

    def _score_urgent(self, first: ContentWork | list[Row]) -> None:
        batch = _Batch()
        batch.add(first)
        while not self._is_full(batch, hurry=False):
            try:
                item = self._queue.get_urgent(timeout=0.0)
            except queue.Empty:
                break
            if item is not None:
                batch.add(item)
        batch.rows += self._encode_images(batch.images)
        urgent = [row for row in batch.rows if row.urgent]
        others = [row for row in batch.rows if not row.urgent]  # of the same images
        while urgent:
            some, urgent = _split(urgent, _MAX_ROWS)
            self._settle(some)
        if others:
            self._due = self._due if self._begun else time.monotonic()
            self._begun.rows += others
        self.hurry()

    def _score_begun(self) -> None:
        """Score as much of what has begun as a batch may have; the rest has the next ones."""
        begun = self._begun
        hurry = self._hurried
        if hurry:  # what has become so meanwhile
            begun.images.sort(key=lambda image: not image.urgent)
        images, begun.images = _split(begun.images, self._most_images.now(hurry=hurry))
        begun.rows += self._encode_images(images)
        if hurry and self._queue.has_urgent:
            return
        rows, begun.rows = _split(begun.rows, self._rows_at_once(hurry=hurry))
        if rows:
            self._settle(rows)

    def _rows_at_once(self, *, hurry: bool) -> int:
        """How many of the rows that have begun may be scored now: captions take the time."""
        if not hurry:
            return _MAX_ROWS
        self._begun.rows.sort(key=lambda row: not row.urgent)
        most = self._most_captions.now(hurry=hurry)
        unknown: set[str] = set()
        for index, row in enumerate(self._begun.rows[:_MAX_ROWS]):
            row.text = row.text or self._cache.caption(row.caption)
            if row.text is None:
                unknown.add(row.caption)
            if len(unknown) > most:
                return index
        return _MAX_ROWS

    @property
    def _hurried(self) -> bool:
        return time.monotonic() < self._hurry_until

    def _is_full(self, batch: _Batch, *, hurry: bool) -> bool:
        most = self._most_images.now(hurry=hurry)
        return len(batch.images) >= most or len(batch.rows) >= _MAX_ROWS

    def _patience(self) -> float | None:
        if not self._begun:
            return None
        expected = self._in_flight.waiting() > len(self._begun.images)
        return max(0.0, self._due - time.monotonic()) if expected else 0.0

    def _settle(self, rows: Sequence[Row]) -> None:
        self._in_flight.settle(zip(rows, self._score_rows(rows), strict=True))

    def _encode_images(self, images: list[ContentWork]) -> list[Row]:
        if not images:
            return []
        pixels = np.stack([image.pixels for image in images if image.pixels is not None])
        with self._most_images.measuring(len(images)):
            embeddings = self._model.embed_images(pixels)
        for image in images:
            image.pixels = None
            self._slots.give_back(image)
        rows = []
        for image, row in zip(images, embeddings, strict=True):
            # A row of the batch's array would keep the whole of it in memory while it is cached.
            embedding = row.copy()
            rows += self._in_flight.encoded(image, embedding, by_others=False)
        return rows

    def _score_rows(self, rows: Sequence[Row]) -> list[Outcome]:
        captions = self._captions_of(rows)
        shape = (len(rows), -1)
        images = np.concatenate([row.image for row in rows if row.image is not None])
        texts = np.concatenate([caption.embedding for caption in captions])
        cosines = np.einsum("nd,nd->n", images.reshape(shape), texts.reshape(shape))
        return [
            self._outcome(row, cosine, truncated=caption.truncated)
            for row, caption, cosine in zip(rows, captions, cosines.tolist(), strict=True)
        ]

    def _outcome(self, row: Row, cosine: float, *, truncated: bool) -> Outcome:
        if not math.isfinite(cosine):
            # Weights with NaN in them, or an overflow at a low precision: a number that is none.
            return Failure(
                Reason.INTERNAL,
                "similarity is not finite",
                attempts=row.attempts,
                image_sha256=row.sha256,
                retryable=True,
            )
        return Score(
            similarity=cosine * self._model.logit_scale,
            cosine=cosine,
            caption_truncated=truncated,
            image_sha256=row.sha256,
            attempts=row.attempts,
        )

    def _captions_of(self, rows: Sequence[Row]) -> list[CaptionEntry]:
        """The embedding of each row's caption, and whether it was truncated."""
        for row in rows:
            row.text = row.text or self._cache.caption(row.caption)
        missing = [row.caption for row in rows if row.text is None]
        distinct = list(dict.fromkeys(missing))
        self._cache.count(Kind.CAPTION, hits=len(rows) - len(missing), misses=len(distinct))
        made: dict[str, CaptionEntry] = {}
        if distinct:
            with self._most_captions.measuring(len(distinct)):
                tokens = self._model.tokenize(distinct)
                embeddings = self._model.embed_captions(tokens)
            for text, caption, embedding in zip(distinct, tokens, embeddings, strict=True):
                made[text] = CaptionEntry(embedding.copy(), caption.truncated)
                self._cache.embedded_caption(text, made[text])
        return [row.text or made[row.caption] for row in rows]
