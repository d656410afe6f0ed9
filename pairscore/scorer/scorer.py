"""`Scorer`: the stages, joined; `score_pairs`: the same for whoever has an iterable."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Self

from pairscore import clip
from pairscore.cache import Cache, Embedding, UrlEntry
from pairscore.cache.opening import open_cache
from pairscore.cache.shared import FoundUrl
from pairscore.fetch import (
    Fetched,
    Fetcher,
    FetchResult,
    FetchStats,
    NotModified,
    Validators,
    parse_url,
)
from pairscore.pair import Failure, Outcome, Pair, Reason
from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.shared import SharedBudgets
from pairscore.scorer.budgets import open_budgets
from pairscore.scorer.decode import DecodeStage, ModelDecoder
from pairscore.scorer.encode import EncodeStage
from pairscore.scorer.in_flight import InFlight
from pairscore.scorer.lookup import LookUpStage
from pairscore.scorer.promise import Promise
from pairscore.scorer.slots import Slots
from pairscore.scorer.work import ContentWork, Row, UrlWork
from pairscore.settings import Settings, load_settings


class ScorerCrashed(RuntimeError):
    """A stage of the scorer ended with a defect (the cause); nothing more can be scored with it."""


class ScorerClosed(RuntimeError):
    """The scorer was closed before the pair had an outcome."""


class Scorer:
    """Scores pairs: fetch -> decode -> encode, each stage on threads of its own.

    `submit` may be called from any thread, and never waits: who submits bounds how many pairs are
    in flight. Memory is bounded by that and by `settings`, not by how many pairs there are. A row's
    failure is its outcome; a defect in a stage is raised by every future, as `ScorerCrashed`.

    The same pair gets the same similarity within 1e-3 at fp32 whatever else is in flight.
    """

    def __init__(
        self, settings: Settings | None = None, *, model: clip.ClipModel | None = None
    ) -> None:
        """Load and warm up the model, unless one is given, and start the threads.

        Raises:
            ModelError: the model cannot be had or used.
            SettingsError: settings that contradict each other or this machine.
            EnvironmentFault: the folder of the cache cannot be used.
        """
        self._settings = settings or load_settings()
        self._own_model = model is None
        self._model = model or clip.load_model(self._settings)
        if self._own_model:
            self._model.warm_up()
        self._stopped: BaseException | None = None
        self._closing = threading.Lock()
        with ExitStack() as opened:
            # First of the threads, as they may refuse their settings.
            self._cache = open_cache(
                self._settings,
                fingerprint=self._model.fingerprint,
                dimensions=self._model.dimensions,
            )
            opened.callback(self._cache.close)
            self._in_flight = InFlight(self._cache)
            self._budgets = open_budgets(self._settings, on_crash=self._crash)
            opened.callback(self._budgets.close)
            self._fetcher = Fetcher(
                self._settings.fetch, on_crash=self._crash, budgets=self._budgets
            )
            opened.pop_all()
        batch_size = self._settings.batch_size or self._model.batch_size
        threads = self._settings.image.threads or min(8, clip.available_cores())
        slots = Slots(2 * batch_size)
        self._encode = EncodeStage(
            model=self._model,
            batch_size=batch_size,
            in_flight=self._in_flight,
            cache=self._cache,
            slots=slots,
            on_crash=self._crash,
        )
        self._look_up = self._make_look_up()
        self._decode = DecodeStage(
            threads,
            decoder=ModelDecoder(self._settings.image.max_pixels, self._model.preprocessing),
            in_flight=self._in_flight,
            slots=slots,
            consumed=self._fetcher.consumed,
            claim=self._claim,
            hand_on=self._encode.put,
            on_crash=self._crash,
        )

    @property
    def fingerprint(self) -> str:
        """What the numbers depend on: weights, preprocessing, backend and precision."""
        return self._model.fingerprint

    @property
    def cache(self) -> Cache:
        """What is remembered, and what that has been good for."""
        return self._cache

    @property
    def fetched(self) -> FetchStats:
        """What fetching has to say of hosts."""
        return self._fetcher.stats

    @property
    def budgets(self) -> LocalBudgets | SharedBudgets:
        """How often hosts are asked."""
        return self._budgets

    @property
    def model(self) -> clip.ClipModel:
        """The model in use."""
        return self._model

    def submit(self, pair: Pair | tuple[str, str], *, urgent: bool = False) -> Future[Outcome]:
        """Begin to score a (url, caption) pair; one that is urgent overtakes those that are not.

        The future's callbacks run in a stage's thread and must be quick.

        Raises:
            ScorerClosed, ScorerCrashed: it is no longer running.
        """
        future: Future[Outcome] = Future()
        # Work is shared between rows, so that one row's future cannot cancel it.
        future.set_running_or_notify_cancel()
        self._take(pair, future, urgent=urgent)
        return future

    def score_pairs(
        self, pairs: Iterable[Pair | tuple[str, str]], *, window: int | None = None
    ) -> Iterator[Outcome]:
        """Outcomes in the order of `pairs` ((url, caption)), which is read `window` pairs ahead.

        Raises:
            ScorerClosed, ScorerCrashed: it ended before the last pair; and whatever `pairs` raises.
        """
        limit = window or self._settings.window
        pending: deque[Promise] = deque()
        for pair in pairs:
            pending.append(promise := Promise())
            self._take(pair, promise)
            while pending and (len(pending) >= limit or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def close(self) -> None:
        """End the threads; pairs without an outcome raise `ScorerClosed`."""
        with self._closing:
            if self._stopped is None:
                self._stopped = ScorerClosed("the scorer is closed")
            self._fetcher.close()
            if self._look_up is not None:
                self._look_up.close()
            self._decode.close()
            self._encode.close()
            self._in_flight.abandon(self._stopped)
            self._in_flight.give_up()
            self._cache.close()
            if self._own_model:
                self._model.close()

    def __enter__(self) -> Self:
        """Use it until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _make_look_up(self) -> LookUpStage | None:
        if self._cache.shared is None:
            return None
        return LookUpStage(
            self._cache.shared,
            self._cache,
            self._in_flight,
            begin=self._begin,
            score=self._encode.put,
            known=self._known,
            decode=lambda content, fetched: self._decode.put(content, fetched),
            on_crash=self._crash,
        )

    def _take(
        self,
        pair: Pair | tuple[str, str],
        future: Future[Outcome] | Promise,
        *,
        urgent: bool = False,
    ) -> None:
        if self._stopped is not None:
            raise self._stopped
        if not isinstance(pair, Pair):
            pair = Pair(*pair)
        url = parse_url(pair.url)
        if isinstance(url, Failure):
            future.set_result(url)
        elif not pair.caption.strip():
            future.set_result(Failure(Reason.EMPTY_CAPTION))
        else:
            if urgent:
                self._encode.hurry()
            row = Row(url, pair.caption, future, urgent)
            self._in_flight.enter(row)
            self._start(row)
            # A stage that died after the check above has abandoned the rows of that moment only.
            self._abandon_if_stopped()

    def _start(self, row: Row) -> None:
        failure = self._in_flight.recall(row)
        if failure is not None:
            self._in_flight.settle([(row, failure)])
        elif row.image is not None and row.text is not None:
            self._encode.put([row])
        elif self._look_up is not None:
            self._look_up.put(row)
        else:
            self._begin(row)

    def _begin(self, row: Row, found: FoundUrl | None = None) -> None:
        admitted = self._in_flight.admit(row, found)
        if isinstance(admitted, UrlWork):
            work = admitted
            known = None if work.earlier is None else _validators(work.earlier[0])
            self._fetcher.fetch(
                work.url, lambda result: self._fetched(work, result), known, urgent=work.urgent
            )
        elif isinstance(admitted, Row):
            self._encode.put([row])
        elif isinstance(admitted, Failure):
            self._in_flight.settle([(row, admitted)])

    def _fetched(self, work: UrlWork, result: FetchResult) -> None:
        if isinstance(result, Fetched):
            self._decode.put(work, result)
            return
        work.attempts = result.attempts
        if isinstance(result, NotModified):
            self._encode.put(self._in_flight.unchanged(work, result.origin))
        else:
            self._in_flight.settle(self._in_flight.failed(work, result))

    def _claim(self, content: ContentWork, fetched: Fetched) -> bool:
        return self._look_up is not None and self._look_up.claim(content, fetched)

    def _known(self, content: ContentWork, fetched: Fetched, embedding: Embedding) -> None:
        self._fetcher.consumed(fetched)
        self._encode.put(self._in_flight.encoded(content, embedding, by_others=True))

    def _abandon_if_stopped(self) -> None:
        if self._stopped is not None:
            self._in_flight.abandon(self._stopped)

    def _crash(self, error: BaseException) -> None:
        crashed = ScorerCrashed(f"a stage of the scorer ended: {error!r}")
        crashed.__cause__ = error
        self._stopped = self._stopped or crashed
        self._in_flight.abandon(self._stopped)


def _validators(entry: UrlEntry) -> Validators:
    return Validators(entry.target, entry.etag, entry.last_modified)


def score_pairs(
    pairs: Iterable[Pair | tuple[str, str]], settings: Settings | None = None
) -> Iterator[Outcome]:
    """Outcomes of (url, caption) pairs, in order, with a scorer of its own.

    `settings` default to the environment's (`PAIRSCORE_*`). At most `settings.window` pairs are in
    flight; to score several iterables with one model, use a `Scorer`.

    Raises:
        ModelError: the model cannot be had or used.
        SettingsError: a setting cannot be used.
    """
    with Scorer(settings) as scorer:
        yield from scorer.score_pairs(pairs)
