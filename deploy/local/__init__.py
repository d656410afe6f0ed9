"""Real services on this machine, for `make fleet`, the tests and the benchmarks alike.

`kafka()`, `redis()` and `postgres()` are contexts: each gives a service by the first way that is
open (`deploy.local.ways`), on loopback with a port and a data folder of its own, and ends what it
started when the context is left, or when the process is gone, killed or not. With `native=True` a
service is made of processes of ours, which tests may kill, restart and make to hang.
"""

from deploy.local.broker import Kafka
from deploy.local.cluster import kafka
from deploy.local.native_kafka import NativeKafka
from deploy.local.postgres_server import NativePostgres, Postgres, postgres
from deploy.local.redis_server import NativeRedis, Redis, redis
from deploy.local.ways import How, Unavailable, WayClosed

__all__ = [
    "How",
    "Kafka",
    "NativeKafka",
    "NativePostgres",
    "NativeRedis",
    "Postgres",
    "Redis",
    "Unavailable",
    "WayClosed",
    "kafka",
    "postgres",
    "redis",
]
