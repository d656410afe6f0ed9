"""What the garbage collector passes over."""

import gc

from pairscore.garbage import set_aside


def test_what_is_there_is_passed_over_and_what_comes_later_is_not():
    before = gc.get_freeze_count()
    try:
        set_aside()
        assert gc.get_freeze_count() > before
        later: list[object] = []
        assert any(each is later for each in gc.get_objects())
    finally:
        gc.unfreeze()
