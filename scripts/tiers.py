"""Retry tiers that no setting names any more: nobody reads what is left on them."""

import re
from collections.abc import Iterable

from shared.topics import Topics


def is_tier(name: str, topics: Topics) -> bool:
    """Whether a topic of this name is a retry tier of the fleet's, in use or not."""
    return re.fullmatch(re.escape(topics.pairs) + r"\.retry\.\d+s", name) is not None


def forsaken_tiers(names: Iterable[str], topics: Topics) -> list[str]:
    """Those of the topics that are tiers, and none that workers with these settings read."""
    return sorted(each for each in names if is_tier(each, topics) and each not in topics.to_score)
