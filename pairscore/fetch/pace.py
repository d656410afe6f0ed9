"""How fast a host is, and how long requests wait for it rather than for anything else. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Of the time since requests began to wait for a host; times are seconds.

    Its clock runs while they wait for nothing but the host: not for room, which others take, nor
    while nothing waits. `done` requests have ended since, `let_go` did not wait.
    """

    done: int = 0
    let_go: int = 0
    _waited: float = 0.0
    _since: float | None = None

    def clock(self, now: float) -> float:
        """For how long they have waited for the host."""
        return self._waited + (now - self._since if self._since is not None else 0.0)

    def held(self, held: bool, now: float) -> None:
        """Whether they do from now on."""
        if held and self._since is None:
            self._since = now
        elif not held and self._since is not None:
            self._waited += now - self._since
            self._since = None

    @property
    def is_held(self) -> bool:
        """Whether they do."""
        return self._since is not None

    def seconds(self, requests: int, now: float) -> float:
        """How long so many requests take, as fast as the host has been."""
        return requests * self.clock(now) / (self.done + 1)
