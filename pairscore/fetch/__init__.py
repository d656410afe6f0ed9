"""Downloads images politely and safely: public addresses only, caps, deadlines, retries."""

from pairscore.fetch.fetcher import Fetcher
from pairscore.fetch.request import Fetched, FetchResult
from pairscore.fetch.url import Url, parse_url

__all__ = ["FetchResult", "Fetched", "Fetcher", "Url", "parse_url"]
