"""The response headers that tell a client of its limits.

Pure. `Retry-After` is RFC 9110's, section 10.2.3; `RateLimit` and `RateLimit-Policy` are those of
draft-ietf-httpapi-ratelimit-headers-10.
"""

from typing import Final

from producer.api.quotas.verdict import Standing, Verdict

# Of units the draft has `requests`, which is meant where none is named; rows are not that.
_UNITS: Final = {"requests": "", "rows": ';qu="rows"', "rows-per-day": ';qu="rows"'}


def limit_headers(verdict: Verdict) -> dict[str, str]:
    """The headers of a response, refused or not; none where the client has no limits."""
    headers: dict[str, str] = {}
    if verdict.standings:
        headers["RateLimit-Policy"] = ", ".join(map(_policy, verdict.standings))
        headers["RateLimit"] = ", ".join(map(_left, verdict.standings))
    if not verdict.allowed and verdict.retry_after is not None:
        headers["Retry-After"] = str(verdict.retry_after)
    return headers


def _policy(standing: Standing) -> str:
    unit = _UNITS[standing.name]
    return f'"{standing.name}";q={standing.limit}{unit};w={standing.window}'


def _left(standing: Standing) -> str:
    return f'"{standing.name}";r={standing.remaining};t={standing.reset}'
