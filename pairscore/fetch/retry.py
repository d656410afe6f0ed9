"""When a URL is asked again: exponential backoff with full jitter, and the server's `Retry-After`.

Pure: the clock is not read and the random number is passed in. Source: M. Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015; RFC 9110 section 10.2.3 for `Retry-After`.
"""

from dataclasses import dataclass

from pairscore.pair import Failure


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late; times are seconds.

    `attempts` counts the first one. `retry_after_cap` is the longest `Retry-After` that is waited
    for: a server that asks for more is left alone, its failure is the outcome.
    """

    attempts: int
    backoff_base: float
    backoff_cap: float
    retry_after_cap: float

    def delay(self, failure: Failure, attempts: int, random: float) -> float | None:
        """Seconds to wait after `attempts` attempts that ended in `failure`; None to give up.

        `random` is uniform in [0, 1). Without `Retry-After` the delay is uniform in [0, d), where d
        doubles with each attempt from `backoff_base` up to `backoff_cap`. With it the delay is what
        the server asked for, plus jitter of at most `backoff_base` so that refused rows do not all
        return at once.
        """
        if not failure.retryable or attempts >= self.attempts:
            return None
        asked = failure.retry_after
        if asked is not None:
            return None if asked > self.retry_after_cap else asked + random * self.backoff_base
        return random * self._ceiling(attempts)

    def _ceiling(self, attempts: int) -> float:
        # 2.0 ** 1024 overflows; by then any base has met its cap.
        doublings = min(attempts - 1, 1000)
        return min(self.backoff_cap, self.backoff_base * 2.0**doublings)
