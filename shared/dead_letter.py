"""What a record on the dead-letter topic says of itself: its original bytes, and these headers."""

from typing import Final

from shared.messages import Rejection

HEADERS: Final = {
    "pairscore.reason": "what is wrong: `undecodable`, `unknown_version`, `invalid` or `oversized`",
    "pairscore.detail": "one line for people",
    "pairscore.topic": "topic that the record was on",
    "pairscore.partition": "its partition there",
    "pairscore.offset": "its offset there",
    "pairscore.timestamp": "its timestamp there, milliseconds since 1970; 0 where it had none",
    "pairscore.worker": "id of the worker that found it",
    "pairscore.size": "bytes of the whole value, of which the first are kept where it was too long",
}
"""Names of the headers and what their values mean, all of them text in UTF-8."""

_DETAIL_CHARS: Final = 1_000


def dead_letter_headers(
    rejection: Rejection,
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    worker: str,
    *,
    size: int | None = None,
) -> list[tuple[str, bytes]]:
    """The headers of a rejected record; `size` is that of its whole value, where it has one."""
    values = {
        "pairscore.reason": rejection.defect.value,
        "pairscore.detail": rejection.detail[:_DETAIL_CHARS],
        "pairscore.topic": topic,
        "pairscore.partition": str(partition),
        "pairscore.offset": str(offset),
        "pairscore.timestamp": str(timestamp_ms),
        "pairscore.worker": worker,
    }
    if size is not None:
        values["pairscore.size"] = str(size)
    return [(name, text.encode(errors="backslashreplace")) for name, text in values.items()]


def cut(value: bytes | None, limit: int) -> bytes | None:
    """The value, or its first `limit` bytes where it is longer; the same object if it is not."""
    return value if value is None or len(value) <= limit else value[:limit]
