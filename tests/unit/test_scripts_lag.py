"""Times as scripts/lag.py tells them."""

import pytest

from scripts.lag import span


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (7_199, "1 h 59 min"),
        (90_061, "1 d 1 h"),
        (86_400 + 59, "1 d"),
        (14 * 86_400, "14 d"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds, said):
    assert span(seconds) == said
