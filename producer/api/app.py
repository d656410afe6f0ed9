"""The application: its routes, and what is around them."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from pairscore import __version__
from producer.api.batches import Batches
from producer.api.errors import handle_errors, name_requests
from producer.api.openapi import document
from producer.api.routes import bigquery, jobs, scores, snowflake
from producer.api.server import BodyLimits
from producer.api.service import Service


def make_app(service: Service) -> FastAPI:
    """The application of a service."""
    app = FastAPI(
        title="pairscore",
        version=__version__,
        summary="How well captions fit their images.",
        description="Every pair in comes out exactly once, with a similarity or an error.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.batches = Batches(service)
    routers = (scores.router, jobs.router, bigquery.router, snowflake.router)
    handle_errors(app, [route for router in routers for route in router.routes])
    for router in routers:
        app.include_router(router)
    if origins := service.settings.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        )
    app.add_middleware(BodyLimits, options=service.settings.api)
    name_requests(app, service.parts.tracer)
    document(app)
    return app
