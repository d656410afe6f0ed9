"""The OpenAPI document, where FastAPI does not write it by itself."""

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from producer.api.problems import Problem
from producer.api.schemas import JobRequest, OutcomeOut, RowOut

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
JSON: Final = "application/json"

EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["progress", "complete"]},
        "data": {"type": "string", "description": "a `JobOut` as JSON"},
    },
}
"""One event of a job's progress."""

EVENTS_EXAMPLE: Final = (
    'event: progress\ndata: {"job": "api-20260131T123000-0f5a0e6c7b12", "state": "closed", ...}\n\n'
)
NDJSON_EXAMPLE: Final = (
    '{"row": 0, "url": "https://images.example/1.jpg", "caption": "a cat", "status": "scored", '
    '"similarity": 27.1, "cosine": 0.271, ...}\n'
)
CSV_EXAMPLE: Final = "url,caption,similarity,error\nhttps://images.example/1.jpg,a cat,27.1,\n"

BODIES: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        JSON: {"schema": {"$ref": "#/components/schemas/JobRequest"}},
        NDJSON: {
            "schema": {"type": "string", "description": "one pair a line; also gzip"},
            "example": '{"url": "https://images.example/1.jpg", "caption": "a cat"}\n',
        },
        CSV: {
            "schema": {"type": "string", "description": "UTF-8 with a header; also gzip"},
            "example": "url,caption\nhttps://images.example/1.jpg,a cat\n",
        },
    },
}
"""The bodies that make a job."""


# What FastAPI does not see, as routes read and write it by themselves.
_unseen: Final[list[type[BaseModel]]] = [JobRequest, Problem, OutcomeOut, RowOut]


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a request, for OpenAPI, where a route reads it by itself."""
    _unseen.append(model)
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def document(app: FastAPI) -> None:
    """Complete the document: models that routes read by themselves, and problems."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schemas = document["components"]["schemas"]
            for model in _unseen:
                found = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(found.pop("$defs", {}))
                schemas[model.__name__] = found
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
