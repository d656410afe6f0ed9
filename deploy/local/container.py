"""A service in a Docker container, which is removed at the end however this process ends.

Testcontainers starts it. Its own means of removing what a killed process leaves behind is one more
container, of an image that has to be fetched as well and with power over the engine; the guard,
which removes all else that is started here, does it instead.
"""

import contextlib
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from deploy.local.guarding import guarded, last_words
from deploy.local.waiting import until
from deploy.local.ways import HOST, WayClosed

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

START_SECONDS: Final = 60.0
_SOCKET = "/var/run/docker.sock"
_ENGINE_SECONDS = 5
_CHARACTERS = 300
_LOCAL = {"localhost", HOST}


@contextlib.contextmanager
def container(
    name: str,
    image: str,
    *,
    ports: Mapping[int, int],
    variables: Mapping[str, str],
    answers: Callable[[], bool],
) -> Iterator[None]:
    """A container while the context lasts, from when it answers; its image is pulled if need be.

    Args:
        name: of the service.
        image: what runs.
        ports: of the container, and where on loopback each is to be reached.
        variables: its environment.
        answers: whether it serves requests.

    Raises:
        WayClosed: no engine of this machine answers, it cannot pull or run the image, or what runs
            does not answer within START_SECONDS.
    """
    with contextlib.ExitStack() as stack:
        _open(stack, f"pairscore-{name}-{uuid.uuid4().hex[:12]}", image, ports, variables, answers)
        yield


def engine_must_answer() -> None:
    """See that there is a Docker engine, and on this machine.

    Raises:
        WayClosed: there is not.
    """
    from docker.errors import DockerException  # type: ignore[import-untyped]
    from testcontainers.core.docker_client import DockerClient, get_docker_host

    address = get_docker_host() or f"unix://{_SOCKET}"
    try:
        # Its client leaves a socket unclosed when nobody listens.
        if address.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as trial:
                trial.connect(address.removeprefix("unix://"))
        # Makes a request, to the engine that the containers' own client will find.
        client = DockerClient(timeout=_ENGINE_SECONDS)
    except (DockerException, OSError):
        raise WayClosed("no Docker engine answers") from None
    with contextlib.closing(client.client):
        if client.host() not in _LOCAL:
            raise WayClosed(f"the Docker engine is of another machine ({client.host()})")


def _open(
    stack: contextlib.ExitStack,
    name: str,
    image: str,
    ports: Mapping[int, int],
    variables: Mapping[str, str],
    answers: Callable[[], bool],
) -> None:
    # Only here: they take as long to import as a service does to start.
    import requests
    from docker.errors import DockerException
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True
    try:
        engine_must_answer()
        service = DockerContainer(image).with_name(name).with_envs(**variables)
        stack.callback(service.get_docker_client().client.close)
        for inside, outside in ports.items():
            # Loopback alone, which the engine's client can be told but this class does not declare.
            cast("dict[str, Any]", service.ports)[f"{inside}/tcp"] = (HOST, outside)
        _pull(service)
        stack.enter_context(guarded("container")).remove_at_end(name)
        service.start()
        _await_answer(service, answers)
    except (DockerException, requests.RequestException) as error:
        raise WayClosed(f"Docker: {' '.join(str(error).split())[:_CHARACTERS]}") from None


def _pull(service: "DockerContainer") -> None:
    # Before there is anything to be removed.
    from docker.errors import ImageNotFound

    images = service.get_docker_client().client.images
    try:
        images.get(service.image)
    except ImageNotFound:
        images.pull(service.image)


def _await_answer(service: "DockerContainer", answers: Callable[[], bool]) -> None:
    answered = False

    def answered_or_ended() -> bool:
        nonlocal answered
        answered = answers()
        service.reload()
        return answered or service.status in {"exited", "dead"}

    in_time = until(answered_or_ended, START_SECONDS)
    if not answered:
        how = "ended at once" if in_time else f"did not answer within {START_SECONDS:.0f} s"
        said = b"".join(service.get_logs()).decode(errors="replace")
        raise WayClosed(f"{service.image} {how} in Docker; its log says: {last_words(said)}")
