"""Settings of the package: read from `PAIRSCORE_*` in the environment, overridden by arguments.

Nested names take two underscores: `PAIRSCORE_FETCH__TIMEOUT=5`, `PAIRSCORE_MODEL=demo`. Nothing
reads the environment at import; `load_settings` does, where objects are wired.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from pairscore.errors import SettingsError
from pairscore.politeness.limits import MOST_RATE, Budget, HostLimit, HostLimits, parse_limits

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
Robots: TypeAlias = Literal["ignore", "respect"]
Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16", "int8"]
BackendName: TypeAlias = Literal["auto", "torch", "onnx"]
AnySettings = TypeVar("AnySettings", bound=BaseSettings)

ENV_PREFIX: Final = "PAIRSCORE_"
SECRET: Final[dict[str, Any]] = {"secret": True}
"""`json_schema_extra` of a field whose value must never be shown though it is no `SecretStr`."""

# The config of every class of settings, and of the groups in them. Inputs are hidden because a
# proxy's URL may hold a password.
CONFIG: Final = SettingsConfigDict(
    env_prefix=ENV_PREFIX,
    env_nested_delimiter="__",
    env_ignore_empty=True,
    frozen=True,
    extra="forbid",
    hide_input_in_errors=True,
    protected_namespaces=(),
)
GROUP: Final = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

_DEFAULT_MODEL = "openai/clip-vit-base-patch32"
_PROXY = re.compile(
    r"(?:https?|socks5h?)://(?:[^@/?#\[\]\\ ]*@)?"
    r"(?:[a-z0-9_.-]+|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE | re.ASCII,
)
_REDIS = re.compile(
    r"(?:rediss?://(?:[^@/?#\[\]\\ ]*@)?(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
    r"(?:/[0-9]{0,5})?|unix://(?:[^@/?#\\ ]*@)?/[^?#\\]+)"
    r"(?:\?(?:(?:db|ssl_[a-z_]+)=[!-%'-~]*&?)*)?",
    re.IGNORECASE | re.ASCII,
)
_DAY: Final = 86_400.0
_YEAR: Final = 366 * _DAY
# libcurl decodes a user and a password, and then refuses these.
_ESCAPED_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)


def _networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise ValueError("must be networks such as 10.0.0.0/8, with commas between them")
    return tuple(_network(str(item).strip()) for item in items if str(item).strip())


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; a network looks like 10.0.0.0/8 or fd00::/8") from None


def _host_limits(value: object) -> tuple[HostLimit, ...]:
    if isinstance(value, str):
        return parse_limits(value)
    if isinstance(value, Iterable):
        limits = tuple(value)
        if all(isinstance(each, HostLimit) for each in limits):
            return limits
    raise ValueError("must be limits such as *.example.org=50/16, with commas between them")


def _proxy(value: SecretStr) -> SecretStr:
    # What is wrong is not quoted: it may be in the password.
    if not _is_proxy(value.get_secret_value()):
        raise ValueError(
            "must be a URL such as http://host:3128 or http://user:password@host:3128, its scheme "
            "http, https, socks5 or socks5h; write special characters of a password as %40 and such"
        )
    return value


def _is_proxy(text: str) -> bool:
    found = _PROXY.fullmatch(text)
    plain = text.isascii() and text.isprintable()
    if found is None or not plain or _ESCAPED_CONTROL.search(text):
        return False
    try:
        if found["ipv6"]:
            IPv6Address(found["ipv6"])
    except ValueError:
        return False
    return found["port"] is None or 0 < int(found["port"]) < 1 << 16


def _redis(value: SecretStr) -> SecretStr:
    # What is wrong is not quoted: it may be in the password.
    if not _REDIS.fullmatch(value.get_secret_value()):
        raise ValueError(
            "must be a URL such as redis://host:6379/0 or rediss://user:password@host:6379/0, or "
            "unix:///path; write special characters of a password as %40 and such"
        )
    return value


def _printable_ascii(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must be printable ASCII, because it is sent as a header")
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}; write the path in full") from None


_ExpandedPath: TypeAlias = Annotated[Path, AfterValidator(_expanded)]


class FetchSettings(BaseModel):
    """How images are downloaded. Times are seconds, sizes bytes."""

    model_config = GROUP

    concurrency: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="transfers in flight at once; an eighth more, or 4, for urgent rows",
    )
    per_host: int = Field(
        default=8,
        ge=1,
        le=4096,
        description="transfers in flight per host, of all workers that share a Redis",
    )
    rate: float = Field(
        default=20.0,
        ge=0,
        le=MOST_RATE,
        description="requests a second per host, of all workers that share a Redis; 0: any "
        "number, as for this machine itself",
    )
    host_limits: Annotated[tuple[HostLimit, ...], NoDecode, BeforeValidator(_host_limits)] = Field(
        default=(),
        description="hosts that are asked at another rate, and with so many transfers: "
        "`*.example.org=50/16, cdn.example.com=200`",
    )
    timeout: float = Field(
        default=15.0, gt=0, le=3600, description="deadline of one attempt, whole"
    )
    connect_timeout: float = Field(default=5.0, gt=0, le=3600)
    stall_timeout: float = Field(
        default=10.0,
        ge=1,
        le=3600,
        description="longest silence inside a response; until it begins only `timeout` counts",
    )
    queue_timeout: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="longest wait for a host that is asked as often as it may be, or that wants to "
        "be left alone; a row that would wait longer is deferred to a retry tier, without counting "
        "as an attempt; default: in a worker a sixth of `timeout`, elsewhere none",
    )
    attempts: int = Field(default=4, ge=1, le=100, description="how often a URL is asked, in all")
    backoff_base: float = Field(default=0.5, ge=0, le=3600)
    backoff_cap: float = Field(default=30.0, ge=0, le=3600)
    retry_after_cap: float = Field(
        default=300.0,
        ge=0,
        le=3600,
        description="longest `Retry-After` that a row waits for; where a host wants to be left "
        "alone for longer, its rows are failures (in a worker they come back)",
    )
    max_bytes: int = Field(default=20_000_000, ge=1, description="cap of one body")
    max_redirects: int = Field(default=5, ge=0, le=50)
    buffer_bytes: int = Field(default=256_000_000, ge=1, description="fetched and not yet decoded")
    allow_networks: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)
    ] = Field(default=(), description="networks that may be asked though they are not public")
    proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = Field(
        default=None,
        description="URL of a proxy, which then has to refuse private addresses itself",
    )
    ca_file: _ExpandedPath | None = Field(
        default=None, description="CA bundle to trust instead of the usual one"
    )
    user_agent: Annotated[str, AfterValidator(_printable_ascii)] | None = Field(
        default=None, description="instead of pairscore/VERSION"
    )
    robots: Robots = Field(
        default="ignore",
        description="`respect`: what robots.txt disallows is not asked for, nor is an image used "
        "whose `X-Robots-Tag` has `noai` or `noimageai`; the same in every worker",
    )

    @property
    def limits(self) -> HostLimits:
        """How often each host may be asked."""
        return HostLimits(Budget(self.rate, self.per_host), self.host_limits)

    @property
    def lease(self) -> float:
        """For how many seconds a request may be in flight, waiting for its turn included."""
        return self.timeout + 5.0


class ImageSettings(BaseModel):
    """Caps on what is decoded, checked before decoding, and the number of decoding threads."""

    model_config = GROUP

    max_pixels: int = Field(default=64_000_000, ge=1)
    threads: int = Field(default=0, ge=0, le=256, description="0: one per core, at most 8")


class CacheSettings(BaseModel):
    """What is remembered of URLs, images and captions. Times are seconds, sizes bytes.

    A server says how long its image is good for; `least` and `most` bound that. Then it is asked
    whether the image has changed, where it gave something to ask by.
    """

    model_config = GROUP

    bytes: int = Field(
        default=128_000_000, ge=0, description="in memory: embeddings, and what URLs led to"
    )
    folder: _ExpandedPath | None = Field(
        default=None, description="also kept in a file there, for the next time; then not in Redis"
    )
    least: float = Field(
        default=3_600.0,
        ge=0,
        le=_YEAR,
        description="seconds that an image is believed unchanged, at least",
    )
    most: float = Field(
        default=30 * _DAY,
        ge=1,
        le=_YEAR,
        description="and at most, whatever its server says",
    )
    absent: float = Field(
        default=3_600.0,
        ge=0,
        le=_YEAR,
        description="seconds that 404, 410 and what is no image are believed",
    )
    unknown_host: float = Field(
        default=600.0,
        ge=0,
        le=_YEAR,
        description="seconds that a name is believed not to exist",
    )
    embedding: float = Field(
        default=30 * _DAY,
        ge=1,
        le=_YEAR,
        description="seconds that embeddings are kept in Redis or the folder",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError("`least` must not be more than `most`")
        return self


class RedisSettings(BaseModel):
    """A Redis that workers share: what they remember. Without it each remembers for itself."""

    model_config = GROUP

    url: Annotated[SecretStr, AfterValidator(_redis)] | None = Field(
        default=None, description="redis://user:password@host:6379/0, rediss:// with TLS"
    )
    timeout: float = Field(
        default=0.05,
        gt=0,
        le=60,
        description="longest silence in a round trip, in seconds, which may take five times that "
        "in all; then it is done without",
    )

    @property
    def whole(self) -> float:
        """What a round trip may take, in seconds.

        What passes while this process is busy is no fault of Redis.
        """
        return 5 * self.timeout


class Settings(BaseSettings):
    """Everything that the scorer can be told."""

    model_config = CONFIG

    model: str = Field(
        default=_DEFAULT_MODEL, min_length=1, description="hub id, folder, or `demo`"
    )
    device: Device = "auto"
    precision: Precision = "auto"
    backend: BackendName = "auto"
    batch_size: int = Field(default=0, ge=0, le=4096, description="images a batch; 0: by device")
    window: int = Field(
        default=32_768,
        ge=1,
        le=1_000_000,
        description="pairs in flight at once, about 1.5 kB each; outcomes are in order, so that so "
        "many go on behind one that waits to be asked again, and no more",
    )
    cache_dir: _ExpandedPath | None = Field(
        default=None, description="exported models; default: the user's cache"
    )
    fetch: FetchSettings = FetchSettings()
    image: ImageSettings = ImageSettings()
    cache: CacheSettings = CacheSettings()
    redis: RedisSettings = RedisSettings()


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    option_names: Mapping[tuple[str, ...], str] | None = None,
) -> Settings:
    """Read the environment; `overrides` (nested like the settings) win over it.

    `option_names` says which option of a command a setting was given by, for complaints to name it:
    `{("fetch", "timeout"): "--timeout"}`.

    Raises:
        SettingsError: a value cannot be used; one line, naming the variable or option.
    """
    return read_settings(Settings, overrides, option_names=option_names)


def read_settings(
    kind: type[AnySettings],
    overrides: Mapping[str, Any] | None = None,
    *,
    option_names: Mapping[tuple[str, ...], str] | None = None,
) -> AnySettings:
    """Do for any class of settings what `load_settings` does for those of the package.

    Values of fields that hold a secret (`SecretStr`, or marked with `SECRET`) are never quoted.

    Raises:
        SettingsError: a value cannot be used; one line, naming the variable or option.
    """
    try:
        return kind(**(overrides or {}))
    except SourceError as error:
        raise SettingsError(f"the environment: {error}") from None
    except ValidationError as error:
        names, secrets = option_names or {}, frozenset(_secrets(kind))
        raise SettingsError(
            "; ".join(_explain(item, names, secrets) for item in error.errors())
        ) from None


def _secrets(kind: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in kind.model_fields.items():
        here = (*path, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _secrets(field.annotation, here)
        elif field.json_schema_extra == SECRET or "SecretStr" in str(field.annotation):
            yield here


def _explain(
    item: Mapping[str, Any],
    option_names: Mapping[tuple[str, ...], str],
    secrets: frozenset[tuple[str, ...]],
) -> str:
    path = tuple(str(part) for part in item["loc"])
    name = option_names.get(path) or f"setting PAIRSCORE_{'__'.join(path).upper()}"
    what = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        what = "there is no such setting; docs/reference.md has them all"
    # A misspelt name may have been meant for a secret, a group may hold one.
    hidden = item["type"] == "extra_forbidden" or any(
        path[: len(secret)] == secret or secret[: len(path)] == path for secret in secrets
    )
    return f"{name}: {what}" if hidden else f"{name}: {what} (got {item.get('input')!r})"
