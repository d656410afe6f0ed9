"""Where models are kept, also where there is no home folder, as in many containers."""

import os
import pwd
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from pairscore.clip import cache_folder, default_cache_dir, load_model
from pairscore.clip.folders import hub_cache
from pairscore.clip.source import find_local, find_model
from pairscore.errors import EnvironmentFault, ModelError, SettingsError
from pairscore.settings import Settings
from tests.tiny_clip import make_tiny_clip


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and a user id that is not in the list of users."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def unusable_home(monkeypatch, tmp_path):
    """A home in which not even root can create anything."""
    home = tmp_path / "home"
    home.touch()
    monkeypatch.setenv("HOME", str(home))


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", ".cache/pairscore"), ("darwin", "Library/Caches/pairscore")],
)
def test_the_cache_folder_is_the_users_own(platform, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert default_cache_dir() == tmp_path / expected


def test_the_variable_for_caches_wins(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")

    assert default_cache_dir() == Path("/x/pairscore")


@pytest.mark.parametrize("home", ["homeless", "unusable_home"])
def test_without_a_home_the_cache_is_a_private_temporary_folder(home, temporary, request):
    request.getfixturevalue(home)

    folder = default_cache_dir()

    assert folder == temporary / f"pairscore-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert default_cache_dir() == folder


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_without_a_home_a_model_loads(backend, temporary, tmp_path):
    folder = make_tiny_clip(tmp_path / "tiny")
    settings = Settings.model_validate(
        {"model": str(folder), "device": "cpu", "backend": backend, "cache_dir": None}
    )

    load_model(settings).warm_up()

    assert [path.name for path in temporary.iterdir()] == [f"pairscore-{os.getuid()}"]


def open_to_all(folder):
    folder.mkdir()
    folder.chmod(0o777)


def link(folder):
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("plant", [open_to_all, link, Path.touch])
def test_a_temporary_folder_that_others_may_have_filled_is_refused(plant, temporary):
    plant(temporary / f"pairscore-{os.getuid()}")

    with pytest.raises(EnvironmentFault, match="PAIRSCORE_CACHE_DIR") as raised:
        default_cache_dir()
    assert "\n" not in str(raised.value)


def test_a_tilde_in_the_configured_folder_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    folder = make_tiny_clip(tmp_path / "tiny")

    load_model(Settings(model=str(folder), device="cpu", cache_dir=Path("~/exports")))

    assert (tmp_path / "home" / "exports" / "onnx").is_dir()
    assert not (tmp_path / "~").exists()


@pytest.mark.usefixtures("homeless")
def test_a_tilde_without_a_home_is_one_line():
    with pytest.raises(SettingsError, match="PAIRSCORE_CACHE_DIR: ~/x cannot be used"):
        cache_folder(Path("~/x"))
    for find in (find_model, find_local):
        with pytest.raises(ModelError, match="model ~/x: there is no such folder"):
            find("~/x")


def test_the_hubs_cache_is_its_clients(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    assert hub_cache() == tmp_path / "hub"


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_hubs_cache_is_in_ours(monkeypatch, temporary):
    # What the client makes of ~ then.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")

    assert hub_cache() == temporary / f"pairscore-{os.getuid()}" / "hub"


@pytest.mark.usefixtures("unusable_home")
@pytest.mark.parametrize("variable", [None, "HF_HOME"])
def test_a_hub_cache_in_an_unusable_home_is_replaced_unless_asked_for(
    variable, monkeypatch, temporary, tmp_path
):
    kept = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(kept))
    if variable:
        monkeypatch.setenv(variable, str(kept.parent))

    assert hub_cache() == (kept if variable else temporary / f"pairscore-{os.getuid()}" / "hub")
