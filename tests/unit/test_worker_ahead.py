"""What was published beyond a committed offset, as the commit's metadata and back."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from worker import offsets
from worker.ahead import decode_ahead, encode_ahead
from worker.ledger import AHEAD, Ledger, Plan
from worker.transactions import Fatal

U = ("pairs.interactive", 0)
MOST_CHARS = 1_024


@given(st.integers(0, 1 << 62), st.sets(st.integers(0, AHEAD - 1)))
def test_offsets_come_back_as_they_were(offset, places):
    ahead = sorted(offset + place for place in places)
    metadata = encode_ahead(offset, ahead)
    assert list(decode_ahead(offset, metadata)) == ahead
    assert len(metadata) <= MOST_CHARS
    assert bool(metadata) == bool(ahead)


@pytest.mark.parametrize("metadata", [None, "", "a", "of another", "a1", "b1:AQ==", "a1:"])
def test_what_others_have_said_there_says_nothing(metadata):
    assert decode_ahead(7, metadata) == ()


@pytest.mark.parametrize("metadata", ["a1:=", "a1:?", "a1:é", "a1:AQ", "a2:AQ=="])
def test_what_cannot_be_understood_is_refused(metadata):
    with pytest.raises(ValueError, match=r".+"):
        decode_ahead(7, metadata)
    looking = offsets_of(TopicPartition(*U, 7, metadata))
    looking.expect(U)
    with pytest.raises(Fatal, match=r"partition 0 cannot be understood .*: start the version"):
        looking.redirect(U, 7)


def test_offsets_that_are_committed_again_keep_what_was_said_with_them():
    committed = TopicPartition(*U, 7, encode_ahead(7, (9, 12)))
    published: list[Plan[Any]] = []
    offsets_of(committed, published).renew()
    [plan] = published
    assert (plan.offsets, plan.ahead) == ({U: 7}, {U: (9, 12)})


def offsets_of(
    committed: TopicPartition, published: list[Plan[Any]] | None = None
) -> offsets.Offsets:
    """Of a group that has committed that, an hour after its last word."""
    ledger: Ledger[Any] = Ledger(ahead=U[0])
    ledger.assign(U)
    took: list[Plan[Any]] = [] if published is None else published
    times = itertools.chain([0.0, 0.0], itertools.repeat(1e9))
    return offsets.Offsets(
        SimpleNamespace(committed=lambda *_: [committed]),  # type: ignore[arg-type]
        SimpleNamespace(publish=lambda plan, _: took.append(plan)),  # type: ignore[arg-type]
        ledger,
        SimpleNamespace(),  # type: ignore[arg-type]
        lambda: next(times),
    )
