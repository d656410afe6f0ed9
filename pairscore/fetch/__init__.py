"""Downloads images politely and safely: public addresses only, caps, deadlines, retries."""

from pairscore.fetch.fetcher import Fetcher
from pairscore.fetch.request import Fetched, FetchResult, NotModified, Origin, Validators
from pairscore.fetch.stats import FetchStats
from pairscore.fetch.url import Url, parse_url

__all__ = [
    "FetchResult",
    "FetchStats",
    "Fetched",
    "Fetcher",
    "NotModified",
    "Origin",
    "Url",
    "Validators",
    "parse_url",
]
