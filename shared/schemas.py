"""The messages as JSON Schema, and the topics as an AsyncAPI 3.0 document: `make docs` writes them.

https://json-schema.org/draft/2020-12 and https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import json
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pairscore import __version__
from shared import dead_letter
from shared.examples import EXAMPLES
from shared.messages import Defect
from shared.settings import KafkaSettings
from shared.telemetry.traces import HEADER
from shared.topics import CLEANUP, Topics, TopicSpec, specs

Document: TypeAlias = dict[str, Any]

_KAFKA_BINDING: Final = "0.5.0"
_SHIPPED_COPIES: Final = 3
_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic as a reader of its messages needs it; `message` is empty for dead letters."""

    name: str
    spec: TopicSpec
    key: str
    message: str
    meaning: str
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]

    @property
    def kept(self) -> str:
        """How long a message stays, in words."""
        if self.spec.config[CLEANUP] == "compact":
            return "the latest of each key"
        days = int(self.spec.config["retention.ms"]) // _DAY_MS
        return "1 day" if days == 1 else f"{days} days"


def channels(settings: KafkaSettings) -> tuple[Channel, ...]:
    """Every topic of a fleet with these settings."""
    topics, spec = Topics.of(settings), {each.name: each for each in specs(settings)}
    fleet = ("producer",), ("worker",)
    url = "the row's URL"
    return (
        Channel("pairs", spec[topics.pairs], url, "pair", "Rows to score.", *fleet),
        Channel(
            "pairsInteractive",
            spec[topics.interactive],
            url,
            "pair",
            "Rows that somebody waits for; always taken before those of `pairs`.",
            *fleet,
        ),
        *(
            Channel(
                f"pairsRetry{tier.delay}s",
                spec[tier.topic],
                url,
                "pair",
                f"Rows that failed and are tried again {tier.delay} s later.",
                ("worker",),
                ("worker",),
            )
            for tier in topics.retries
        ),
        Channel(
            "deadLetters",
            spec[topics.dead_letters],
            "the record's own",
            "",
            "Records that are no message of ours: their bytes, and in headers why and from where.",
            ("worker",),
            (),
        ),
        Channel(
            "scores", spec[topics.scores], url, "score", "Outcomes.", ("worker",), ("sink", "you")
        ),
        Channel(
            "replies",
            spec[topics.replies],
            "who waits",
            "score",
            "Copies of outcomes that a process of the API waits for, in its own partition.",
            ("worker",),
            ("producer",),
        ),
        Channel(
            "jobs",
            spec[topics.jobs],
            "the job's name",
            "job",
            "What is known of each job.",
            ("producer",),
            ("producer", "sink"),
        ),
        Channel(
            "cancellations",
            spec[topics.cancellations],
            "the job's name",
            "cancellation",
            "Jobs that are cancelled.",
            ("producer",),
            ("worker",),
        ),
    )


def json_schema(name: str) -> Document:
    """The JSON Schema of a kind of message."""
    schema = type(EXAMPLES[name][0]).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def asyncapi(settings: KafkaSettings) -> Document:
    """The AsyncAPI document of a fleet with these settings."""
    found = channels(settings)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "pairscore",
            "version": __version__,
            "description": "Image URLs and captions in, how well they match out: every row exactly "
            "once, with a score or a reason. Readers of `scores` must read committed messages "
            "only (isolation.level=read_committed) and ignore fields that they do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": {"host": settings.bootstrap_servers, "protocol": "kafka"}},
        "channels": {channel.name: _channel(channel) for channel in found},
        "operations": {
            f"{service}{'Sends' if action == 'send' else 'Receives'}"
            f"{channel.name[0].upper()}{channel.name[1:]}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel.name}"},
                "summary": f"By the {service}.",
            }
            for channel in found
            for action, services in (("send", channel.written_by), ("receive", channel.read_by))
            for service in services
            if service != "you"
        },
        "components": {
            "messages": {
                **{name: _message(name) for name in EXAMPLES},
                "deadLetter": _dead_letter(),
            }
        },
    }


def documents() -> dict[str, str]:
    """The text of every document, by its path in docs/."""
    found = {f"schemas/{name}.json": json_schema(name) for name in EXAMPLES}
    found["asyncapi.json"] = asyncapi(KafkaSettings())
    return {
        path: json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for path, document in found.items()
    }


def _channel(channel: Channel) -> Document:
    message = channel.message or "deadLetter"
    config = channel.spec.config
    given: Document = {CLEANUP: config[CLEANUP].split(",")}
    for name in ("retention.ms", "max.message.bytes"):
        if name in config:
            given[name] = int(config[name])
    return {
        "address": channel.spec.name,
        "description": f"{channel.meaning} Key: {channel.key}. Kept: {channel.kept}.",
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {
            "kafka": {
                "partitions": channel.spec.partitions,
                "replicas": _SHIPPED_COPIES,
                "topicConfiguration": given,
                "bindingVersion": _KAFKA_BINDING,
            }
        },
    }


def _message(name: str) -> Document:
    examples = EXAMPLES[name]
    key = "the row's URL; `sha256:` and its digest where it is over 8,192 characters"
    if name in {"job", "cancellation"}:
        key = "the job's name"
    traced: Document = {}
    if name in {"pair", "score"}:
        about = "W3C Trace Context, of a row that is in a trace"
        traced["headers"] = {
            "type": "object",
            "properties": {HEADER: {"type": "string", "description": about}},
        }
    return {
        "name": type(examples[0]).__name__,
        "summary": (type(examples[0]).__doc__ or "").partition("\n")[0],
        **traced,
        "payload": {"$ref": f"./schemas/{name}.json"},
        "bindings": _key_binding({"type": "string", "description": key}),
        "examples": [{"payload": json.loads(example.encode())} for example in examples],
    }


def _dead_letter() -> Document:
    properties: Document = {
        name: {"type": "string", "description": meaning}
        for name, meaning in dead_letter.HEADERS.items()
    }
    properties["pairscore.reason"]["enum"] = [defect.value for defect in Defect]
    return {
        "name": "DeadLetter",
        "summary": "A record that is no message of ours, byte for byte.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "required": [name for name in dead_letter.HEADERS if name != "pairscore.size"],
            "properties": properties,
        },
        "payload": {},
        "bindings": _key_binding({"description": "the record's own key"}),
    }


def _key_binding(key: Document) -> Document:
    return {"kafka": {"key": key, "bindingVersion": _KAFKA_BINDING}}
