"""The API in this process, on topics of a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from deploy.local.ports import free_ports
from producer.api.command import serve
from shared.settings import ApiOptions, KafkaSettings, ProducerSettings, TelemetrySettings
from shared.shutdown import StopSignal
from tests.fetching import wait_until

WITHIN = 30.0


class Api:
    """Where it is, and a client for it."""

    def __init__(self, port: int, stop: StopSignal, spool: Path) -> None:
        self.port = port
        self.spool = spool
        self.url = f"http://127.0.0.1:{port}"
        self.stop = stop

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=WITHIN, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=WITHIN * 3, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        return requests.delete(self.url + path, timeout=WITHIN, **options)


@contextmanager
def serving_api(
    kafka: KafkaSettings, results: Path, *, api: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Api]:
    """The API until the end of the block, which is ended in order."""
    (port,) = free_ports(1)
    options = ApiOptions(**{"port": port, "id": "api", "spool": str(results), **(api or {})})
    made = ProducerSettings(
        kafka=kafka,
        api=options,
        results=str(results),
        **{"telemetry": TelemetrySettings(port=0), **settings},
    )
    stop = StopSignal()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            serve(made, stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)
            stop.ask()

    thread = threading.Thread(target=run, name="api", daemon=True)
    thread.start()
    served = Api(port, stop, results / "pairscore-api-api")

    def ready() -> bool:
        if failures:
            raise failures[0]
        try:
            return requests.get(f"{served.url}/v1/openapi.json", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    try:
        wait_until(ready, within=WITHIN)
        yield served
    finally:
        stop.ask()
        thread.join(WITHIN)
    assert not thread.is_alive()
    if failures:
        raise failures[0]
