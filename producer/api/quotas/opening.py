"""Opens the quotas that the settings ask for."""

from producer.api.quotas.local import LocalQuotas, Quotas


def open_quotas(url: str | None, seconds: float) -> Quotas:
    """Quotas that are shared by all who use the Redis of `url`; without one, this process's own.

    `seconds` is how long an answer is waited for, at most.

    Raises:
        SettingsError: `url` cannot be one of a Redis.
    """
    local = LocalQuotas()
    if url is None:
        return local
    # Imported here, so that what is not used costs nothing.
    from producer.api.quotas.accounts_in_redis import AccountsInRedis
    from producer.api.quotas.shared import PROBE_SECONDS, SharedQuotas

    return SharedQuotas(
        AccountsInRedis(url, seconds=max(seconds, PROBE_SECONDS)), local, seconds=seconds
    )
