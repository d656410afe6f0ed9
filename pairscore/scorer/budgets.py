"""Puts the budgets of hosts together from the settings."""

import uuid
from collections.abc import Callable

from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.shared import SharedBudgets
from pairscore.settings import Settings


def open_budgets(
    settings: Settings, *, on_crash: Callable[[BaseException], None]
) -> LocalBudgets | SharedBudgets:
    """Those of all that use the same Redis, if the settings name one; else of this process.

    Raises:
        SettingsError: the URL of Redis cannot be one.
    """
    fetch, redis = settings.fetch, settings.redis
    local = LocalBudgets(fetch.limits, lease=fetch.lease)
    if redis.url is None:
        return local
    from pairscore.politeness.hosts_in_redis import HostsInRedis  # only who uses it pays for redis

    hosts = HostsInRedis(
        redis.url.get_secret_value(),
        fetch.limits,
        worker=uuid.uuid4().hex,
        lease=fetch.lease,
        seconds=redis.timeout,
    )
    return SharedBudgets(hosts, local, seconds=redis.whole, on_crash=on_crash)
