"""The real fetcher and decoder give every row of the demo data the outcome that it says it has."""

import queue
from ipaddress import IPv4Network
from pathlib import Path

from pairscore.demo.dataset import make_dataset
from pairscore.demo.rows import HEADER, Row
from pairscore.demo.server import serve
from pairscore.fetch import Fetched, Fetcher, FetchResult, parse_url
from pairscore.image import decode
from pairscore.pair import Failure, Reason
from pairscore.settings import FetchSettings

SETTINGS = FetchSettings(
    timeout=1, attempts=2, backoff_base=0.01, allow_networks=(IPv4Network("127.0.0.0/8"),)
)


def test_every_row_ends_as_the_data_set_says(tmp_path: Path) -> None:
    with serve(tmp_path) as base_url:
        dataset = make_dataset(tmp_path, base_url=base_url)
        # Whether a name exists is for a resolver to say, and it may be far away.
        asked = [row for row in dataset.rows if row.expected is not Reason.DNS_ERROR]
        ended = outcomes([row for row in asked if len(row.cells) == len(HEADER)])
    wrong = [
        (row, ended[row.cells[0]])
        for row in asked
        if len(row.cells) == len(HEADER) and ended[row.cells[0]] != row.expected
    ]
    assert wrong == []


def outcomes(rows: list[Row]) -> dict[str, Reason | None]:
    """Why each row (by id) cannot be scored, None where it can; neither model nor CSV is asked."""
    ended: dict[str, Reason | None] = {}
    arrived: queue.Queue[tuple[str, FetchResult | BaseException]] = queue.Queue()
    fetcher = Fetcher(SETTINGS, on_crash=lambda error: arrived.put(("", error)))
    pending = 0
    for identity, cell, caption, _ in (row.cells for row in rows):
        url = parse_url(cell)
        if isinstance(url, Failure):
            ended[identity] = url.reason
        elif not caption.strip():
            ended[identity] = Reason.EMPTY_CAPTION
        else:
            pending += 1
            fetcher.fetch(url, lambda result, key=identity: arrived.put((key, result)))  # type: ignore[misc]
    for _ in range(pending):
        key, result = arrived.get(timeout=30)
        assert not isinstance(result, BaseException), result
        if isinstance(result, Fetched):
            decoded = decode(result.body, max_pixels=64_000_000)
            fetcher.consumed(result)
            ended[key] = decoded.reason if isinstance(decoded, Failure) else None
        else:
            assert isinstance(result, Failure)
            ended[key] = result.reason
    fetcher.close()
    return ended
