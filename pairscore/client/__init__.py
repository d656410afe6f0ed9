"""A client of pairscore's HTTP API, for services and scripts that score by a fleet.

    from pairscore.client import Client

    with Client("https://pairscore.example.org", key="ps_...") as client:
        (outcome,) = client.score([("https://images.example/cat.jpg", "a cat")])
        job = client.submit("challenge_set.csv")
        job.wait()
        job.download("challenge_scored.csv")

Needs `requests`, which comes with the extra `pairscore[client]`; no model and no torch. A `Client`
belongs to one thread. See docs/api.md.
"""

try:
    import requests as _requests  # noqa: F401
except ImportError:
    raise ImportError(
        "pairscore.client needs requests; install it with: pip install 'pairscore[client]'"
    ) from None

from pairscore.client.answers import JobStatus, Pending, RowOutcome
from pairscore.client.client import Client
from pairscore.client.errors import ApiError, NoAnswer, Unfinished
from pairscore.client.job import Job
from pairscore.client.retries import Retries

__all__ = [
    "ApiError",
    "Client",
    "Job",
    "JobStatus",
    "NoAnswer",
    "Pending",
    "Retries",
    "RowOutcome",
    "Unfinished",
]
