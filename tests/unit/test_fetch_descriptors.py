"""The limit on open files is raised as far as the transfers need it, or is said to be too low."""

import resource

import pytest

from pairscore.errors import EnvironmentFault
from pairscore.fetch.descriptors import provide_descriptors

ENDLESS = resource.RLIM_INFINITY


class Limits:
    """Stands in for the kernel's; `refuse` is what macOS does beyond its own maximum."""

    def __init__(self, soft: int, hard: int, *, refuse: bool = False) -> None:
        self.soft, self.hard, self.refuse = soft, hard, refuse

    def get(self, _which: int) -> tuple[int, int]:
        return self.soft, self.hard

    def set(self, _which: int, limits: tuple[int, int]) -> None:
        if self.refuse:
            raise ValueError("current limit exceeds maximum limit")
        self.soft, self.hard = limits


@pytest.fixture
def limits(monkeypatch):
    def put(soft: int, hard: int, *, refuse: bool = False) -> Limits:
        limits = Limits(soft, hard, refuse=refuse)
        monkeypatch.setattr(resource, "getrlimit", limits.get)
        monkeypatch.setattr(resource, "setrlimit", limits.set)
        return limits

    return put


@pytest.mark.parametrize(
    ("soft", "hard", "concurrency", "then"),
    [
        (272, 272, 64, 272),
        (255, 4096, 64, 272),
        (256, ENDLESS, 1000, 2378),
        (ENDLESS, ENDLESS, 4096, ENDLESS),
        (100_000, 100_000, 4096, 100_000),
    ],
)
def test_the_soft_limit_is_raised_to_what_is_needed(limits, soft, hard, concurrency, then):
    found = limits(soft, hard)
    provide_descriptors(concurrency)
    assert (found.soft, found.hard) == (then, hard)


@pytest.mark.parametrize(
    ("soft", "hard", "refuse", "advice"),
    [
        (256, 1024, False, "lower --concurrency to 398, or raise the limit with `ulimit -n 1252`"),
        (256, ENDLESS, True, "lower --concurrency to 56, or raise the limit with `ulimit -n 1252`"),
        (48, 48, False, "may have 48; raise the limit with `ulimit -n 1252`"),
    ],
)
def test_a_limit_that_cannot_be_raised_is_one_line_of_advice(limits, soft, hard, refuse, advice):
    found = limits(soft, hard, refuse=refuse)
    with pytest.raises(EnvironmentFault) as error:
        provide_descriptors(500)
    assert str(error.value).startswith("500 downloads at once need 1,252 open files")
    assert str(error.value).endswith(advice)
    assert found.soft == soft
