"""Server-sent events, as the HTML standard has them, from the lines of a response.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    name: str
    data: bytes

    def json(self) -> object:
        """Its data as JSON; raises ValueError."""
        return json.loads(self.data)


def events_of(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events, each when its empty line has come; one that is cut short is none."""
    name, data = b"", list[bytes]()
    for line in lines:
        if not line:
            if data:
                yield Event(name.decode(errors="replace") or "message", b"\n".join(data))
            name, data = b"", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data.append(value)
