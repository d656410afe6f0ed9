"""The encode stage: batches of images and captions through the model, and their scores."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pairscore.cache import Cache, CaptionEntry
from pairscore.cache.stats import Kind
from pairscore.clip import ClipModel
from pairscore.inbox import Inbox
from pairscore.pair import Failure, Outcome, Reason, Score
from pairscore.scorer.work import ContentWork, Encoded, InFlight, Row

_MAX_ROWS: Final = 1024
_LINGER: Final = 0.010


@dataclass(slots=True)
class _Batch:
    images: list[ContentWork] = field(default_factory=list)
    known: list[Encoded] = field(default_factory=list)

    def add(self, item: ContentWork | Encoded) -> None:
        if isinstance(item, ContentWork):
            self.images.append(item)
        else:
            self.known.append(item)


class EncodeStage:
    """One thread in front of the model.

    A batch is what has come in meanwhile, up to `batch_size` images; while more are on their way it
    waits up to 10 ms for them, so that the model is not fed one by one.
    """

    def __init__(
        self,
        *,
        model: ClipModel,
        batch_size: int,
        in_flight: InFlight,
        cache: Cache,
        slots: threading.Semaphore,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._model = model
        self._batch_size = batch_size
        self._in_flight = in_flight
        self._cache = cache
        self._slots = slots
        self._on_crash = on_crash
        # Images are bounded by `slots`, rows whose image is known by the window of who submits
        # them.
        self._queue: Inbox[ContentWork | Encoded | None] = Inbox()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pairscore-encode", daemon=True)
        self._thread.start()

    def put(self, item: ContentWork | Encoded) -> None:
        """Take a decoded image, or rows whose image is known; never waits."""
        self._queue.put(item)

    def close(self) -> None:
        """End the thread after the batch it is at; what has not begun is dropped."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._score(batch)
        # The one place where a defect of this thread is turned into the end of the scorer.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _next_batch(self) -> _Batch | None:
        batch = _Batch()
        item = self._queue.get()
        deadline = time.monotonic() + _LINGER
        while item is not None and not self._stopping:
            batch.add(item)
            if len(batch.images) >= self._batch_size or len(batch.known) >= _MAX_ROWS:
                return batch
            try:
                item = self._queue.get(timeout=self._patience(batch, deadline))
            except queue.Empty:
                return batch
        return None

    def _patience(self, batch: _Batch, deadline: float) -> float:
        expected = self._in_flight.waiting() > len(batch.images)
        return max(0.0, deadline - time.monotonic()) if expected else 0.0

    def _score(self, batch: _Batch) -> None:
        encoded = [*self._encode_images(batch.images), *batch.known]
        rows = [(row, item, attempts) for item in encoded for row, attempts in item.rows]
        for start in range(0, len(rows), _MAX_ROWS):
            self._in_flight.settle(self._score_rows(rows[start : start + _MAX_ROWS]))

    def _encode_images(self, images: list[ContentWork]) -> list[Encoded]:
        if not images:
            return []
        pixels = np.stack([image.pixels for image in images if image.pixels is not None])
        embeddings = self._model.embed_images(pixels)
        for image in images:
            image.pixels = None
            self._slots.release()
        encoded = []
        for image, row in zip(images, embeddings, strict=True):
            # A row of the batch's array would keep the whole of it in memory while it is cached.
            embedding = row.copy()
            encoded.append(self._in_flight.encoded(image, embedding, by_others=False))
        return encoded

    def _score_rows(self, rows: Sequence[tuple[Row, Encoded, int]]) -> list[tuple[Row, Outcome]]:
        captions = self._embed_captions([row for row, _, _ in rows])
        images = np.stack([item.embedding for _, item, _ in rows])
        texts = np.stack([captions[row.caption].embedding for row, _, _ in rows])
        cosines = np.einsum("nd,nd->n", images, texts)
        return [
            (
                row,
                self._outcome(
                    float(cosine), item, attempts, truncated=captions[row.caption].truncated
                ),
            )
            for (row, item, attempts), cosine in zip(rows, cosines, strict=True)
        ]

    def _outcome(self, cosine: float, item: Encoded, attempts: int, *, truncated: bool) -> Outcome:
        if not math.isfinite(cosine):
            # Weights with NaN in them, or an overflow at a low precision: a number that is none.
            return Failure(
                Reason.INTERNAL,
                "similarity is not finite",
                attempts=attempts,
                image_sha256=item.sha256,
                retryable=True,
            )
        return Score(
            similarity=cosine * self._model.logit_scale,
            cosine=cosine,
            caption_truncated=truncated,
            image_sha256=item.sha256,
            attempts=attempts,
        )

    def _embed_captions(self, rows: Sequence[Row]) -> dict[str, CaptionEntry]:
        """The embedding of each distinct caption, and whether it was truncated."""
        known: dict[str, CaptionEntry] = {}
        missing: list[str] = []
        for text, row in {row.caption: row for row in rows}.items():
            entry = row.known or self._cache.caption(text)
            self._cache.count(Kind.CAPTION, hit=entry is not None)
            if entry is None:
                missing.append(text)
            else:
                known[text] = entry
        if missing:
            tokens = self._model.tokenize(missing)
            embeddings = self._model.embed_captions(tokens)
            for text, caption, embedding in zip(missing, tokens, embeddings, strict=True):
                known[text] = CaptionEntry(embedding.copy(), caption.truncated)
                self._cache.embedded_caption(text, known[text])
        return known
