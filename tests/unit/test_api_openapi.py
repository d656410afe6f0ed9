"""What the OpenAPI document says of each operation: examples, and every error."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from producer.api import schemas
from producer.api.app import make_app
from producer.api.routes import bigquery, snowflake
from shared.settings import ApiOptions
from shared.telemetry.traces import Tracer

SERVICE: Any = SimpleNamespace(
    settings=SimpleNamespace(api=ApiOptions()), parts=SimpleNamespace(tracer=Tracer())
)
DOCUMENT = make_app(SERVICE).openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
MODELS = [
    each
    for module in (schemas, bigquery, snowflake)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, BaseModel) and each.__module__ == module.__name__
]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


OPERATIONS = list(operations())


def has_example(content: dict[str, Any]) -> bool:
    schema = content.get("schema", {})
    named = SCHEMAS.get(schema.get("$ref", "").rpartition("/")[2], {})
    return "example" in content or "example" in schema or "example" in named


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[each[0] for each in OPERATIONS])
def test_every_body_and_every_answer_has_an_example(name, operation):
    answers = operation["responses"]
    contents = [
        (status, kind, content)
        for status, answer in answers.items()
        for kind, content in answer["content"].items()
    ]
    body = operation.get("requestBody", {"content": {}})["content"]
    contents += [("body", kind, content) for kind, content in body.items()]
    assert [each[:2] for each in contents if not has_example(each[2])] == []
    # What any request may run into, and one of those that say that something is wrong with it.
    assert {"401", "429", "503"} <= answers.keys()
    assert answers.keys() & {"400", "422"} or name == "get /v1/jobs"


@pytest.mark.parametrize("model", MODELS, ids=[each.__name__ for each in MODELS])
def test_examples_are_what_they_stand_for(model):
    extra = model.model_config.get("json_schema_extra") or {}
    example = extra.get("example")
    if example is None:
        assert model in {schemas.PairIn, schemas.Links}
        return
    read = model.model_validate(example, strict=False)
    assert read.model_dump(exclude_unset=True).keys() == example.keys()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def test_every_reference_leads_somewhere():
    names = {f"#/components/schemas/{name}" for name in SCHEMAS}
    assert set(references(DOCUMENT)) <= names
    assert "#/components/schemas/ScoresRequest" in set(references(DOCUMENT))
