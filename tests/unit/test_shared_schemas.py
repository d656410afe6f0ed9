"""The documents: what they say is what `decode` does and what the topics are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairscore.pair import Reason
from shared.dead_letter import HEADERS
from shared.examples import EXAMPLES
from shared.messages import (
    CancellationMessage,
    Defect,
    JobMessage,
    PairMessage,
    Rejection,
    ScoreMessage,
    decode,
)
from shared.schemas import asyncapi, channels, documents, json_schema
from shared.settings import KafkaSettings
from shared.topics import Topics, specs

DOCS = Path(__file__).resolve().parents[2] / "docs"
KINDS: dict[
    str, type[PairMessage] | type[ScoreMessage] | type[JobMessage] | type[CancellationMessage]
] = {
    "pair": PairMessage,
    "score": ScoreMessage,
    "job": JobMessage,
    "cancellation": CancellationMessage,
}
CASES = [(name, index) for name in EXAMPLES for index in range(len(EXAMPLES[name]))]

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
_SAID = {"title", "description", "default", "$schema", "$defs", "examples", "format"}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is what a JSON Schema says; fails on keywords that are not known here."""
    rules = {
        "$ref": lambda ref: fits(value, root["$defs"][ref.removeprefix("#/$defs/")], root),
        "type": lambda kind: is_a(value, kind),
        "const": lambda only: value == only and type(value) is type(only),
        "enum": lambda listed: value in listed,
        "anyOf": lambda options: any(fits(value, option, root) for option in options),
        "oneOf": lambda options: sum(fits(value, option, root) for option in options) == 1,
        "required": lambda names: not isinstance(value, dict) or value.keys() >= set(names),
        "properties": lambda given: (
            not isinstance(value, dict)
            or all(fits(value[name], given[name], root) for name in given.keys() & value.keys())
        ),
        "items": lambda item: (
            not isinstance(value, list) or all(fits(each, item, root) for each in value)
        ),
        "pattern": lambda text: not isinstance(value, str) or bool(re.search(text, value)),
        "minLength": lambda least: not isinstance(value, str) or len(value) >= least,
        "maxLength": lambda most: not isinstance(value, str) or len(value) <= most,
        "minimum": lambda least: not is_a(value, "number") or value >= least,
        "maximum": lambda most: not is_a(value, "number") or value <= most,
        "exclusiveMaximum": lambda most: not is_a(value, "number") or value < most,
    }
    return all(rules[name](given) for name, given in schema.items() if name not in _SAID)


def is_a(value: Any, kind: str) -> bool:
    if kind in {"integer", "number"}:
        number = int if kind == "integer" else (int, float)
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind])


def payload(name: str, index: int) -> dict[str, Any]:
    found = json.loads(EXAMPLES[name][index].encode())
    assert isinstance(found, dict)
    return found


def resolve(document: dict[str, Any], ref: str) -> Any:
    target: Any = document
    for part in ref.removeprefix("#/").split("/"):
        target = target[part]
    return target


@pytest.mark.parametrize("path", sorted(documents()))
def test_what_is_checked_in_is_what_the_code_says(path):
    assert (DOCS / path).read_text(encoding="utf-8") == documents()[path]


@pytest.mark.parametrize("name", KINDS)
def test_a_schema_has_every_field_with_its_meaning(name):
    schema = json_schema(name)
    assert schema["properties"].keys() == KINDS[name].model_fields.keys()
    for each in (schema, *schema.get("$defs", {}).values()):
        assert each["description"]
        assert all(field.get("description") for field in each.get("properties", {}).values())


@pytest.mark.parametrize(("name", "index"), CASES)
def test_examples_are_what_the_schema_says_and_can_be_read(name, index):
    schema = json_schema(name)
    assert fits(payload(name, index), schema, schema)
    again = decode(KINDS[name], json.dumps(payload(name, index)).encode())
    assert again == EXAMPLES[name][index]


values = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers(1 << 61, 1 << 63)
    | st.sampled_from(["", "a", "a/b", "open", "closed", *Reason])
    | st.lists(st.sampled_from(["", "a", 1, -1, None]), max_size=2)
    | st.dictionaries(st.sampled_from(["delimiter", "dropped", "bom"]), st.just("x"))
)


@given(case=st.sampled_from(CASES), data=st.data())
def test_schema_and_reader_agree_on_what_is_wrong(case, data):
    name, index = case
    message = payload(name, index)
    # What only a reader checks: a time, a file's name, that two numbers are equal.
    times = {"created_at", "deferred_since", "scored_at", "cancelled_at"}
    unsaid = {*times, "rows_published", "rows", "v", "csv"}
    field = data.draw(st.sampled_from(sorted(KINDS[name].model_fields.keys() - unsaid)))
    if data.draw(st.booleans()):
        message[field] = data.draw(values)
    else:
        message.pop(field, None)
    schema = json_schema(name)
    found = decode(KINDS[name], json.dumps(message).encode())
    assert fits(message, schema, schema) == (not isinstance(found, Rejection)), found


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pair", {"v": 2}),
        ("score", {"error": "timeout"}),
        ("score", {"similarity": None}),
        ("score", {"cosine": None}),
        ("job", {"state": "closed"}),
        ("job", {"rows": 10_000}),
        ("cancellation", {"job": "a/b"}),
        ("job", {"csv": {"delimiter": ";"}}),
    ],
)
def test_a_schema_refuses_what_the_reader_refuses(name, changes):
    schema, message = json_schema(name), {**payload(name, 0), **changes}
    assert not fits(message, schema, schema)
    assert isinstance(decode(KINDS[name], json.dumps(message).encode()), Rejection)


def test_every_topic_is_a_channel_as_it_is_created():
    settings = KafkaSettings()
    found = {channel["address"]: channel for channel in asyncapi(settings)["channels"].values()}
    assert set(found) == set(Topics.of(settings).all)
    for spec in specs(settings):
        kafka = found[spec.name]["bindings"]["kafka"]
        assert kafka["partitions"] == spec.partitions
        config = kafka["topicConfiguration"]
        assert config["cleanup.policy"] == spec.config["cleanup.policy"].split(",")
        for name in ("retention.ms", "max.message.bytes"):
            assert str(config.get(name)) == spec.config.get(name, "None")


def test_topics_are_kept_as_designed():
    kept = {channel.spec.name: channel.kept for channel in channels(KafkaSettings())}
    assert kept == {
        "pairs": "14 days",
        "pairs.interactive": "1 day",
        "pairs.retry.5s": "14 days",
        "pairs.retry.60s": "14 days",
        "pairs.retry.600s": "14 days",
        "pairs.dlq": "30 days",
        "scores": "7 days",
        "replies": "1 day",
        "jobs": "the latest of each key",
        "cancellations": "15 days",
    }


def test_settings_change_the_document():
    document = asyncapi(
        KafkaSettings(
            topic_prefix="eu.", partitions=48, retry_delays=(30,), bootstrap_servers="k:1"
        )
    )
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert "eu.pairs.retry.30s" in addresses
    assert len(addresses) == 8
    assert document["channels"]["scores"]["bindings"]["kafka"]["partitions"] == 48
    assert document["servers"]["kafka"]["host"] == "k:1"


def test_every_reference_leads_somewhere():
    document = asyncapi(KafkaSettings())
    refs = re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))
    assert len(refs) > 20
    for ref in refs:
        if ref.startswith("#/"):
            assert resolve(document, ref)
        else:
            assert (DOCS / ref).is_file()


def test_dead_letters_have_their_headers():
    headers = asyncapi(KafkaSettings())["components"]["messages"]["deadLetter"]["headers"]
    assert headers["properties"].keys() == HEADERS.keys()
    assert headers["properties"]["pairscore.reason"]["enum"] == [each.value for each in Defect]


@pytest.mark.parametrize("name", KINDS)
def test_examples_of_the_document_can_be_read(name):
    message = asyncapi(KafkaSettings())["components"]["messages"][name]
    examples = [example["payload"] for example in message["examples"]]
    assert len(examples) >= 2
    for example in examples:
        assert isinstance(decode(KINDS[name], json.dumps(example).encode()), KINDS[name])
