"""Where reading begins, and what of it must be said aloud: no record is skipped in silence."""

from dataclasses import dataclass

from sink.intake import Place


@dataclass(frozen=True, slots=True)
class Range:
    """The offsets that Kafka has of a partition: from `first` to before `end`."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Start:
    """The offset that a partition is read from, and a line about it where there is need of one."""

    offset: int
    warning: str = ""


def find_start(place: Place, stored: int | None, kept: Range) -> Start:
    """Where to go on in a partition: at the next offset that was stored, if Kafka still has it.

    Else from the first record there is: outcomes that are stored already are told by their rows, so
    that reading too much costs time and nothing else.
    """
    topic, partition = place
    where = f"{topic} partition {partition}"
    if stored is None:
        if kept.first == 0:
            return Start(0)
        return Start(
            kept.first,
            f"{where}: the records before offset {kept.first} are gone from Kafka and were never "
            "stored here; rows of older jobs may be missing",
        )
    if stored < kept.first:
        return Start(
            kept.first,
            f"{where}: the records from offset {stored} to {kept.first - 1} are gone from Kafka "
            "and were not stored; jobs of theirs stay incomplete (`python -m sink status` shows "
            "which): have Kafka keep records for longer, or do not let the sink rest so long",
        )
    if stored > kept.end:
        return Start(
            kept.first,
            f"{where}: records up to offset {stored} were stored, and Kafka ends at {kept.end}; it "
            "has lost some, and what it has is read again from its beginning",
        )
    return Start(stored)
