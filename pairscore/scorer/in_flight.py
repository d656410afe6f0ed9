"""The one table that the stages share: each URL and each content is worked on once.

All of it is under one lock, held only for look-ups.
"""

import threading
from collections.abc import Iterable
from dataclasses import replace

from pairscore.cache import Cache, Embedding, NegativeEntry, UrlEntry
from pairscore.cache.shared import Found, FoundUrl
from pairscore.cache.stats import Kind
from pairscore.fetch import Origin
from pairscore.pair import Failure, Outcome
from pairscore.scorer.work import ContentWork, Row, UrlWork


class InFlight:
    """Single flight by URL and by content, with what is in the cache in front of both.

    A failure that would come out differently another time is not remembered; any other is, with
    `attempts` 0 for rows that come later.
    """

    def __init__(self, cache: Cache) -> None:
        self._lock = threading.Lock()
        self._rows: set[Row] = set()
        self._urls: dict[str, UrlWork] = {}
        self._contents: dict[str, ContentWork] = {}
        self._cache = cache

    def enter(self, row: Row) -> None:
        """Take a row in, which from now on ends with an outcome or with what ends the scorer."""
        with self._lock:
            self._rows.add(row)

    def has(self, url: str) -> bool:
        """Whether a URL is being worked on."""
        return url in self._urls

    def recall(self, row: Row) -> Failure | None:
        """Give a row what is known of it here; why it has no image, where that is known."""
        entry = self._cache.url(row.url.text)
        if entry is None or not self._cache.is_fresh(entry):
            return None
        if isinstance(entry, NegativeEntry):
            self._cache.count(Kind.URL, hits=1)
            return replace(entry.failure, attempts=0)
        row.text = self._cache.caption(row.caption)
        image = self._cache.image(entry.sha256)
        if image is not None:
            row.led_to(entry.sha256, image)
            self._count_known(1)
        return None

    def learn(self, rows: Iterable[Row], found: Found) -> list[Row]:
        """Remember what others know, and give it to rows; those whose image is known by now."""
        found = self._cache.learn(found)
        ready, hits = [], 0
        for row in rows:
            row.text = row.text or found.captions.get(row.caption)
            if row.image is None:
                entry, image = found.urls.get(row.url.text, (None, None))
                if image is None or not isinstance(entry, UrlEntry):
                    continue
                if not self._cache.is_fresh(entry):
                    continue
                row.led_to(entry.sha256, image)
                hits += 1
            ready.append(row)
        self._count_known(hits)
        return ready

    def admit(self, row: Row, found: FoundUrl | None = None) -> UrlWork | Row | Failure | None:
        """Begin with a row, of whose URL others know what is `found`.

        Returns:
            The work of a URL that has to be fetched, or the row if it can be scored, or why it has
            no image, or None if it waits for work that has begun.
        """
        if row.image is not None:
            return row
        url = row.url.text
        with self._lock:
            work = self._urls.get(url)
            if work is not None:
                work.join(row)
                return None
            entry, image = self._cache.url(url), None
            if found is not None and (entry is None or found[0].fresh_until >= entry.fresh_until):
                entry, image = found
            fresh = entry is not None and self._cache.is_fresh(entry)
            if isinstance(entry, UrlEntry):
                if image is None:
                    image = self._cache.image(entry.sha256)
                if fresh and image is not None:
                    row.led_to(entry.sha256, image)
                    self._count_known(1)
                    return row
            self._cache.count(Kind.URL, hits=fresh, misses=not fresh)
            if isinstance(entry, NegativeEntry) and fresh:
                return replace(entry.failure, attempts=0)
            work = UrlWork.of(row)
            if isinstance(entry, UrlEntry) and entry.can_be_validated and image is not None:
                work.earlier = (entry, image)
            self._urls[url] = work
            return work

    def fetched(self, work: UrlWork, sha256: str, origin: Origin) -> ContentWork | list[Row] | None:
        """Say what a URL led to, and where that came from.

        Returns:
            The work of an image that has to be decoded, or the rows that can be scored where its
            embedding is known, or None if the URL waits for an image that is being worked on.
        """
        with self._lock:
            self._led_to(work, sha256, origin)
            content = self._contents.get(sha256)
            if content is not None:
                content.urls.append(work)
                return None
            image = self._cache.image(sha256)
            if image is not None:
                self._cache.count(Kind.IMAGE, hits=1)
                return self._leave(work, sha256, image)
            content = ContentWork(sha256, [work])
            self._contents[sha256] = content
            return content

    def unchanged(self, work: UrlWork, origin: Origin) -> list[Row]:
        """Say that a URL leads to what it led to `earlier`; the rows that can be scored."""
        if work.earlier is None:
            raise RuntimeError("only what is known can have stayed the same")
        entry, image = work.earlier
        self._cache.count(Kind.IMAGE, hits=1)
        with self._lock:
            self._led_to(work, entry.sha256, origin)
            return self._leave(work, entry.sha256, image)

    def encoded(self, content: ContentWork, image: Embedding, *, by_others: bool) -> list[Row]:
        """End the work on an image: later rows find its embedding, those that waited are given."""
        self._cache.count(Kind.IMAGE, hits=by_others, misses=not by_others)
        remember = self._cache.learn_image if by_others else self._cache.embedded
        with self._lock:
            remember(content.sha256, image)
            del self._contents[content.sha256]
            return [row for url in content.urls for row in self._leave(url, content.sha256, image)]

    def failed(self, work: UrlWork | ContentWork, failure: Failure) -> list[tuple[Row, Failure]]:
        """End the work on a URL or an image with a failure, for each row that waited."""
        with self._lock:
            if isinstance(work, ContentWork):
                del self._contents[work.sha256]
                self._cache.gave_up(work.sha256)
                urls = work.urls
            else:
                urls = [work]
            ended: list[tuple[Row, Failure]] = []
            for url in urls:
                self._cache.failed(url.url.text, failure)
                own = replace(failure, attempts=url.attempts)
                ended += ((row, own) for row in url.rows)
                self._urls.pop(url.url.text, None)
            return ended

    def settle(self, outcomes: Iterable[tuple[Row, Outcome]]) -> None:
        """Give rows their outcomes; the futures' callbacks run in this thread."""
        with self._lock:
            waiting = [(row, outcome) for row, outcome in outcomes if row in self._rows]
            self._rows.difference_update(row for row, _ in waiting)
        for row, outcome in waiting:
            row.future.set_result(outcome)

    def abandon(self, error: BaseException) -> None:
        """Let every row in flight raise `error`."""
        with self._lock:
            rows, self._rows = self._rows, set()
        for row in rows:
            row.future.set_exception(error)

    def give_up(self) -> None:
        """Let others embed the images that are in flight."""
        with self._lock:
            contents = list(self._contents)
        for sha256 in contents:
            self._cache.gave_up(sha256)

    def waiting(self) -> int:
        """How many images are being fetched, decoded or encoded."""
        return len(self._urls)

    def _led_to(self, work: UrlWork, sha256: str, origin: Origin) -> None:
        self._cache.led_to(
            work.url.text,
            sha256,
            origin.lifetime,
            target=origin.url,
            etag=origin.etag,
            last_modified=origin.last_modified,
        )

    def _leave(self, work: UrlWork, sha256: str, image: Embedding) -> list[Row]:
        self._urls.pop(work.url.text, None)
        for row in work.rows:
            row.led_to(sha256, image, work.attempts)
        return work.rows

    def _count_known(self, rows: int) -> None:
        self._cache.count(Kind.URL, hits=rows)
        self._cache.count(Kind.IMAGE, hits=rows)
