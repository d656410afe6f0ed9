"""Settings of the services: one class each, read from `PAIRSCORE_*` like those of the package.

A variable of that prefix that no service knows is a mistake, and is said; one that another service
knows is not, since they are often set for all of them at once.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from pairscore.settings import CONFIG, GROUP, SECRET, RedisSettings, Settings, read_settings
from shared.variables import refuse_unknown

# What the promise rests on, or what is set from another setting, is not the user's to change.
RESERVED: Final = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.protocol",
        "group.remote.assignor",
        "isolation.level",
        "message.max.bytes",
        "logger",
        "metadata.broker.list",
        "partition.assignment.strategy",
        "partitioner",
        "transaction.timeout.ms",
        "transactional.id",
    }
)
_CALLBACK: Final = re.compile(r".*_cb|on_.*")


def _properties(value: object) -> dict[str, str]:
    # A value that cannot be used is not quoted: it may be a password.
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise ValueError('must be JSON such as {"security.protocol": "SSL"}')
    for name in sorted(map(str, value)):
        if name in RESERVED or _CALLBACK.fullmatch(name):
            raise ValueError(f"the property {name} is pairscore's own to set; leave it out")
    return {str(name): _property(str(name), item) for name, item in value.items()}


def _property(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"the property {name} must be a text, a number, true or false")


def _delays(value: object) -> tuple[int, ...]:
    if value == "none":
        return ()
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise ValueError("must be seconds such as 5,60,600")
    try:
        delays = tuple(int(str(item).strip()) for item in items if str(item).strip())
    except ValueError:
        raise ValueError(
            "must be whole seconds with commas between them, such as 5,60,600"
        ) from None
    if any(delay < 1 for delay in delays) or sorted(set(delays)) != list(delays):
        raise ValueError("must be seconds of at least 1 that rise, such as 5,60,600")
    return delays


def _origins(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise ValueError("must be origins such as https://app.example")
    origins = tuple(str(item).strip() for item in items if str(item).strip())
    for origin in origins:
        if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin):
            raise ValueError(f"{origin!r} is no origin such as https://app.example")
    return origins


class KafkaSettings(BaseModel):
    """How to reach Kafka, and what the topics are like."""

    model_config = GROUP

    bootstrap_servers: str = Field(
        default="localhost:9092", min_length=1, description="brokers to begin with, host:port,..."
    )
    group_protocol: Literal["consumer", "classic"] = Field(
        default="consumer", description="`consumer` (KIP-848) needs Kafka 4; `classic` any"
    )
    topic_prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="put before the names of topics, groups and transactional ids",
    )
    partitions: int = Field(
        default=12, ge=1, le=10_000, description="of `pairs` and `scores`; bounds the workers"
    )
    replication: int = Field(
        default=0, ge=0, le=100, description="copies; 0: 3, or as many as there are brokers"
    )
    max_message_bytes: int = Field(
        default=4_194_304, ge=10_000, le=100_000_000, description="longest row, as a message"
    )
    retry_delays: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_delays)] = Field(
        default=(5, 60, 600),
        description="seconds of the retry tiers; `none`: a worker asks again at once, by itself",
    )
    properties: Annotated[dict[str, str], NoDecode, BeforeValidator(_properties)] = Field(
        default={},
        repr=False,
        json_schema_extra=SECRET,
        description="any property of librdkafka, as JSON: TLS, SASL and the like",
    )


def _endpoint(url: str | None) -> str | None:
    if not url:
        return None
    if re.match(r"https?://[^/\s]", url) is None:
        raise ValueError("it must be a URL of a collector, such as http://otel-collector:4318")
    return url.rstrip("/")


class TelemetrySettings(BaseModel):
    """Logs, traces, and the port of /metrics, /livez and /readyz."""

    model_config = GROUP

    host: str = Field(default="127.0.0.1", description="address that the port is opened on")
    port: int | None = Field(
        default=None, ge=0, le=65_535, description="default 9464, or any free one where it is taken"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="`auto`: text on a terminal, else JSON"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: Annotated[str | None, AfterValidator(_endpoint)] = Field(
        default=None,
        description="where traces are sent, OTLP over HTTP, such as http://otel-collector:4318; "
        "none are made without it",
    )
    traces_sampled: float = Field(
        default=0.01, ge=0, le=1, description="share of the batches, and of requests, with a trace"
    )


class ProducerOptions(BaseModel):
    """How rows are published."""

    model_config = GROUP

    transaction_rows: int = Field(
        default=10_000, ge=1, le=1_000_000, description="rows in one transaction"
    )
    transaction_seconds: float = Field(
        default=1.0, gt=0, le=20, description="longest time before rows can be seen"
    )
    limit_rate: float | None = Field(default=None, gt=0, description="rows a second at most")


class WorkerOptions(BaseModel):
    """How a worker takes rows and gives outcomes. Times are seconds."""

    model_config = GROUP

    id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="its own in the fleet, and the same when it comes back; default: the host's "
        "name, with the user's number and one where several run on one host",
    )
    commit_interval: float = Field(
        default=0.5, gt=0, le=20, description="longest time a finished row waits for others"
    )
    commit_rows: int = Field(
        default=2_000, ge=1, le=100_000, description="finished rows that are published at once"
    )
    in_flight: int = Field(
        default=8_192,
        ge=1,
        le=1_000_000,
        description="rows in the scorer at once, at most, and as many urgent ones, which overtake "
        "them; it has what it can do in 4 seconds, and the others of the window wait",
    )
    window_bytes: int = Field(
        default=256_000_000, ge=1_000_000, description="of messages that are being worked on"
    )
    shutdown_seconds: float = Field(
        default=20.0, ge=0, le=600, description="for finishing what is in flight when asked to end"
    )
    stall_seconds: float = Field(
        default=60.0, ge=5, le=3600, description="a loop that stands still so long ends the process"
    )


class ApiOptions(BaseModel):
    """How requests are taken. Times are seconds, sizes bytes."""

    model_config = GROUP

    host: str = Field(default="127.0.0.1", description="address that it listens on")
    port: int = Field(default=8080, ge=0, le=65_535, description="0: any free one")
    id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,40}$",
        description="its own among API processes, and the same when it comes back; default: the "
        "host's name, with a number if there are several on one host",
    )
    keys: str | None = Field(
        default=None, min_length=1, description="file of API keys (`python -m producer keys`)"
    )
    open: bool = Field(
        default=False,
        description="take requests without a key from other machines; else `keys` must be set for "
        "a `host` that is not this machine's own",
    )
    spool: str | None = Field(
        default=None,
        min_length=1,
        description="folder for uploads until they are published; default: the system's for "
        "temporary files",
    )
    upload_bytes: int = Field(
        default=10 * 1024**3,
        ge=1_000,
        description="longest CSV or NDJSON, as it is sent and unpacked",
    )
    json_bytes: int = Field(
        default=16 * 1024**2, ge=1_000, le=1024**3, description="longest JSON, held in memory"
    )
    upload_rows: int = Field(default=100_000_000, ge=1, description="most rows of a job")
    uploads: int = Field(
        default=4,
        ge=1,
        le=100,
        description="uploads that are checked and published at once, of one client half of them",
    )
    client_uploads: int = Field(
        default=16,
        ge=1,
        le=10_000,
        description="uploads of one client that are received or wait at once; others are refused",
    )
    connections: int = Field(
        default=16_384, ge=10, description="most connections; more are closed at once"
    )
    head_seconds: float = Field(
        default=10.0, gt=0, le=600, description="for the head of a request to come"
    )
    idle_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="without a byte of a body, or between requests"
    )
    body_rate: int = Field(
        default=1_024,
        ge=0,
        description="least bytes a second of a body, after its first 10 seconds",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] = Field(
        default=(), description="origins whose pages may ask, with commas between them; none"
    )
    inline_rows: int = Field(
        default=100_000, ge=1, description="rows of in-line requests that make one job, at most"
    )
    inline_seconds: float = Field(
        default=3_600.0, gt=0, le=86_400, description="longest time that such a job is open"
    )
    jobs_days: int = Field(
        default=30,
        ge=22,  # longer than rows and scores are on their topics
        le=3_650,
        description="an API's job that was begun so long ago, and is complete, is forgotten, "
        "unless it has an Idempotency-Key; its outcomes stay in the results store",
    )


class SinkOptions(BaseModel):
    """How outcomes are stored. Times are seconds."""

    model_config = GROUP

    commit_rows: int = Field(default=2_000, ge=1, le=1_000_000, description="rows stored at once")
    commit_interval: float = Field(
        default=0.5, gt=0, le=20, description="longest time a row waits for others"
    )
    stall_seconds: float = Field(
        default=60.0, ge=5, le=3600, description="a loop that stands still so long ends the process"
    )


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = CONFIG

    kafka: KafkaSettings = KafkaSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


class StoreSettings(BaseSettings):
    """Where results are."""

    model_config = CONFIG

    results: str = Field(
        default="results", min_length=1, description="folder of the CSV sink: results and spool"
    )
    postgres_url: SecretStr | None = Field(
        default=None,
        description="postgresql://user:password@host/database of the Postgres sink; a "
        "`connect_timeout` in it counts up to 7 seconds",
    )


class ProducerSettings(ServiceSettings, StoreSettings):
    """Everything that a producer can be told; the results are where it waits for its job."""

    producer: ProducerOptions = ProducerOptions()
    api: ApiOptions = ApiOptions()
    redis: RedisSettings = RedisSettings()


class WorkerSettings(ServiceSettings, Settings):
    """Everything that a worker can be told; `fetch.attempts` is across all retry tiers.

    `window` bounds the rows that are taken and not yet published.
    """

    window: int = Field(
        default=16_384, ge=1, le=1_000_000, description="rows taken and not yet published"
    )
    worker: WorkerOptions = WorkerOptions()


class SinkSettings(ServiceSettings, StoreSettings):
    """Everything that a sink can be told."""

    sink: SinkOptions = SinkOptions()


SERVICES: Final = (ProducerSettings, WorkerSettings, SinkSettings)

AnyService = TypeVar("AnyService", bound=ServiceSettings)


def read_service_settings(
    kind: type[AnyService],
    overrides: Mapping[str, Any] | None = None,
    *,
    option_names: Mapping[tuple[str, ...], str] | None = None,
) -> AnyService:
    """Read a service's settings from the environment; `overrides` win over it.

    Raises:
        SettingsError: a value cannot be used, or a variable is none of any service; one line.
    """
    refuse_unknown(os.environ, SERVICES)
    return read_settings(kind, overrides, option_names=option_names)
