"""Hosts that wait for their turns, those with an urgent request before all others. Pure."""

from collections import OrderedDict


class Line:
    """First in, first out; a host with urgent requests and others stands in both lines."""

    def __init__(self) -> None:
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._others: OrderedDict[str, None] = OrderedDict()

    @property
    def others(self) -> int:
        """How many hosts stand there for requests that are not urgent."""
        return len(self._others)

    def place(self, host: str, urgent: bool, others: bool) -> None:
        """Say for what a host stands there: where it is already, or else at the end."""
        if urgent:
            self._urgent.setdefault(host)
        elif self._urgent:
            self._urgent.pop(host, None)
        if others:
            self._others.setdefault(host)
        else:
            self._others.pop(host, None)

    def next(self, *, urgent: bool = False) -> str | None:
        """The first host, which stands there for that no more; None if there is none.

        With `urgent`, only one that stands there for an urgent request.
        """
        if self._urgent:
            return self._urgent.popitem(last=False)[0]
        return self._others.popitem(last=False)[0] if self._others and not urgent else None
