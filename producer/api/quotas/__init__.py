"""How much each client may ask: quotas of this process alone, or of all that share a Redis."""

from producer.api.quotas.headers import limit_headers
from producer.api.quotas.local import LocalQuotas, Quotas
from producer.api.quotas.opening import open_quotas
from producer.api.quotas.verdict import LimitName, Standing, Verdict

__all__ = [
    "LimitName",
    "LocalQuotas",
    "Quotas",
    "Standing",
    "Verdict",
    "limit_headers",
    "open_quotas",
]
