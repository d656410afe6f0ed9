"""The decode stage: threads that turn bodies into pixels, each image once."""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from pairscore.clip.preprocessing import Preprocessing
from pairscore.fetch import Fetched
from pairscore.image import Preprocessor, configure_thread, decode
from pairscore.lanes import Lanes
from pairscore.pair import Failure, Reason
from pairscore.scorer.in_flight import InFlight
from pairscore.scorer.slots import Slots
from pairscore.scorer.work import ContentWork, Pixels, Row, UrlWork

_log = logging.getLogger("pairscore.scorer")
_PATIENCE: Final = 0.5
_URGENT: Final = "urgent"


class PixelDecoder(Protocol):
    """Turns an image file into the pixels that the model takes."""

    def configure_thread(self) -> None:
        """Prepare the calling thread, once, before its first image."""

    def __call__(self, body: bytes) -> Pixels | Failure:
        """The uint8 [3, height, width] pixels of an image file, or why there are none."""


class ModelDecoder:
    """The pixels of files of at most `max_pixels` pixels, as one model takes them."""

    def __init__(self, max_pixels: int, preprocessing: Preprocessing) -> None:
        self._max_pixels = max_pixels
        self._preprocess = Preprocessor(preprocessing.resize, preprocessing.crop)

    def configure_thread(self) -> None:
        """Have torch use one core."""
        configure_thread()

    def __call__(self, body: bytes) -> Pixels | Failure:
        """Decode and preprocess."""
        image = decode(body, max_pixels=self._max_pixels)
        return image if isinstance(image, Failure) else self._preprocess(image)


class DecodeStage:
    """`threads` threads between the fetcher and the encode stage, and one for urgent bodies alone.

    `slots` bounds the images that are decoded and not yet encoded: a thread waits for one before it
    hands an image on. Urgent bodies go first; their thread is there for when all others wait.
    `claim` is asked about each image before it is decoded; where it takes one, it gives it back if
    that is to be decoded after all. A defect in one image is that image's `internal` failure,
    logged with its traceback; a defect outside is handed to `on_crash`.
    """

    def __init__(
        self,
        threads: int,
        *,
        decoder: PixelDecoder,
        in_flight: InFlight,
        slots: Slots,
        consumed: Callable[[Fetched], None],
        claim: Callable[[ContentWork, Fetched], bool],
        hand_on: Callable[[ContentWork | list[Row]], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._decoder = decoder
        self._in_flight = in_flight
        self._slots = slots
        self._consumed = consumed
        self._claim = claim
        self._hand_on = hand_on
        self._on_crash = on_crash
        self._stopping = False
        # As long as the fetcher has slots: a body keeps its own until it is consumed.
        self._queue: Lanes[tuple[UrlWork | ContentWork, Fetched] | None] = Lanes()
        self._threads = [
            threading.Thread(
                target=self._run, args=(name,), name=f"pairscore-decode-{name}", daemon=True
            )
            for name in (*map(str, range(threads)), _URGENT)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, work: UrlWork | ContentWork, fetched: Fetched) -> None:
        """Take the body of a URL, or of an image that was claimed; never waits."""
        self._queue.put((work, fetched), urgent=work.urgent)

    def close(self) -> None:
        """End the threads; what has not been decoded is dropped."""
        self._stopping = True
        for _ in self._threads:
            self._queue.put(None, urgent=True)
        for thread in self._threads:
            thread.join(timeout=10)

    def _run(self, name: str) -> None:
        try:
            self._decoder.configure_thread()
            while not self._stopping:
                item = self._queue.get_urgent() if name == _URGENT else self._queue.get()[0]
                if item is None:
                    break
                self._take(*item)
        # The one place where a defect of this thread is turned into the end of the scorer.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)

    def _take(self, work: UrlWork | ContentWork, fetched: Fetched) -> None:
        if isinstance(work, ContentWork):
            self._work_on(work, fetched)
            return
        work.attempts = fetched.attempts
        sha256 = hashlib.sha256(fetched.body).hexdigest()
        content = self._in_flight.fetched(work, sha256, fetched.origin)
        if not isinstance(content, ContentWork):
            self._consumed(fetched)
            if content is not None:
                self._hand_on(content)
        elif not self._claim(content, fetched):
            self._work_on(content, fetched)

    def _work_on(self, content: ContentWork, fetched: Fetched) -> None:
        pixels = self._decode(fetched.body, content)
        self._consumed(fetched)
        if isinstance(pixels, Failure):
            failure = replace(pixels, image_sha256=content.sha256)
            self._in_flight.settle(self._in_flight.failed(content, failure))
            return
        content.pixels = pixels
        while not self._slots.take(content, _PATIENCE):
            if self._stopping:
                return
        self._hand_on(content)

    def _decode(self, body: bytes, content: ContentWork) -> Pixels | Failure:
        try:
            return self._decoder(body)
        # The promise is a reason for every row, for those that find a defect too.
        except Exception as error:  # noqa: BLE001
            _log.exception("decoding %s failed with a defect", content.urls[0].url.text)
            return Failure(Reason.INTERNAL, f"decoding: {type(error).__name__}", retryable=True)
