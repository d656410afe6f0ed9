"""Who calls the API, and how much they may ask of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may do: requests a second, rows a second, rows a day (UTC); 0 is any number."""

    requests_per_second: float = 0.0
    rows_per_second: float = 0.0
    rows_per_day: int = 0


@dataclass(frozen=True, slots=True)
class Client:
    """Who called: `name` owns jobs and quotas, `key` is the id of the key that was presented."""

    name: str
    key: str
    limits: Limits = Limits()
    all_jobs: bool = False
    """Whether it sees the jobs of all clients."""
