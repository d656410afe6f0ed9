"""Dead letters: what their headers say, and what is kept of what is too long."""

import pytest

from shared.dead_letter import HEADERS, cut, dead_letter_headers
from shared.messages import Defect, Rejection


def headers(rejection: Rejection, **options) -> dict[str, str]:
    found = dead_letter_headers(rejection, "pairs", 3, 41, 1_700_000_000_000, "host-1", **options)
    assert len(dict(found)) == len(found)
    return {name: value.decode() for name, value in found}


@pytest.mark.parametrize("defect", Defect)
def test_headers_say_why_and_where_from(defect):
    assert headers(Rejection(defect, "not é message"), size=7) == {
        "pairscore.reason": defect.value,
        "pairscore.detail": "not é message",
        "pairscore.topic": "pairs",
        "pairscore.partition": "3",
        "pairscore.offset": "41",
        "pairscore.timestamp": "1700000000000",
        "pairscore.worker": "host-1",
        "pairscore.size": "7",
    }


def test_every_header_is_described():
    assert headers(Rejection(Defect.INVALID, "x"), size=0).keys() == HEADERS.keys()


def test_a_record_without_a_value_has_no_size():
    assert headers(Rejection(Defect.INVALID, "x")).keys() == HEADERS.keys() - {"pairscore.size"}


def test_a_detail_of_any_length_and_content_can_be_sent():
    found = headers(Rejection(Defect.INVALID, "\ud800" + "x" * 100_000))
    assert found["pairscore.detail"].startswith("\\ud800xx")
    assert len(found["pairscore.detail"]) < 1_100


def test_what_is_too_long_is_cut():
    assert cut(b"12345", 4) == b"1234"
    assert cut(b"1234", 4) == b"1234"
    assert cut(b"", 0) == b""
    assert cut(None, 4) is None
