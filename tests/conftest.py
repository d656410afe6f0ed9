"""What every test can rely on."""

import os
from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.services", "tests.faults.telling"]


# Once and first: fixtures of whole modules read settings too.
@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_developers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("PAIRSCORE_")]:
            patch.delenv(name)
        yield
