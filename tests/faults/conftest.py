"""What the scenarios share: a broker, pictures, the rows; and where their counts are shown."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from deploy import local
from deploy.local.ports import free_ports, listens
from pairscore.demo.dataset import Dataset, make_dataset
from pairscore.pair import Reason
from tests.faults.data import Row, rows_of
from tests.faults.processes import Nursery, clean_environment, nursery
from tests.faults.stage import Scale, Stage
from tests.faults.supervisor import Command, Supervisor
from tests.faults.telling import teller
from tests.services import had

_PICTURES: Final = 500
_LONG_SECONDS: Final = 1_800


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("long_faults"):
        here = Path(__file__).parent
        for item in items:
            if item.path.is_relative_to(here):
                item.add_marker(pytest.mark.timeout(_LONG_SECONDS))


@pytest.fixture
def tell(request: pytest.FixtureRequest, seed: int) -> Callable[[object], None]:
    """Show a line at the end of the run."""
    told = teller(request)
    told(f"--faults-seed {seed}")
    return told


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    return Scale(long=bool(pytestconfig.getoption("long_faults")))


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    given = pytestconfig.getoption("faults_seed")
    return secrets.randbelow(1_000_000) if given is None else int(given)


@pytest.fixture(scope="session")
def processes() -> Iterator[Nursery]:
    with nursery() as made:
        yield made


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def picture_urls(processes: Nursery, picture_folder: Path) -> Iterator[tuple[str, str]]:
    """Where the demo's pictures are, and those that need patience."""
    ports = free_ports(2)
    arguments = (str(picture_folder), *map(str, ports))
    with Supervisor(processes, picture_folder) as supervisor:
        supervisor.start(
            "pictures", Command("tests.faults.pictures", lambda: arguments, clean_environment())
        )
        supervisor.until(lambda: all(map(listens, ports)), 60.0, "no pictures are served")
        yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"


@pytest.fixture(scope="session")
def dataset(scale: Scale, picture_folder: Path, picture_urls: tuple[str, str]) -> Dataset:
    count = scale.of(_PICTURES, scale.rows)
    return make_dataset(picture_folder, rows=count, base_url=picture_urls[0])


@pytest.fixture(scope="session")
def rows(dataset: Dataset) -> tuple[Row, ...]:
    """Those of the demo but for the ones that wait for servers which say nothing for a minute."""
    return tuple(row for row in rows_of(dataset) if row.expected is not Reason.TIMEOUT)


@pytest.fixture(scope="session")
def stage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def stage(
    processes: Nursery,
    scale: Scale,
    picture_urls: tuple[str, str],
    rows: tuple[Row, ...],
    stage_folder: Path,
    seed: int,
) -> Iterator[Stage]:
    """A broker of the module's own."""
    with had(local.kafka(native=True)) as kafka:
        yield Stage(kafka, processes, scale, *picture_urls, rows, stage_folder, seed)
