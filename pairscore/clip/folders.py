"""Where models are kept on this machine: the user's cache, or a substitute where there is none.

A container that runs as some user id has often no home folder, or one that is not the user's.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path

from pairscore.errors import EnvironmentFault, SettingsError

# With one of these the user says where the hub's cache is.
_HUB_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


def cache_folder(configured: Path | None) -> Path:
    """Name the folder for exported models: what is configured, `~` being the home folder.

    Raises:
        SettingsError: `~` is configured and there is no such home folder.
        EnvironmentFault: as `default_cache_dir`.
    """
    if configured is None:
        return default_cache_dir()
    try:
        return configured.expanduser()
    except RuntimeError:
        raise SettingsError(
            f"setting PAIRSCORE_CACHE_DIR: {configured} cannot be used, as the home folder of ~ "
            "is not known; give a path without ~"
        ) from None


def default_cache_dir() -> Path:
    """Name the user's cache folder of this platform, read from the environment now.

    Where the home folder is not known, or nothing can be created in it, it is a private folder
    among the temporary ones, which is made.

    Raises:
        EnvironmentFault: there is no place for a private folder.
    """
    if override := os.environ.get("XDG_CACHE_HOME"):
        return Path(override) / "pairscore"
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    try:
        folder = Path.home() / caches / "pairscore"
    except RuntimeError:
        return _private_folder()
    return folder if _is_usable(folder) else _private_folder()


def hub_cache() -> Path:
    """Name the hub's cache: its client's, or one in ours where that has no home folder to be in.

    Raises:
        EnvironmentFault: as `default_cache_dir`.
    """
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    # The client leaves ~ as it is where it knows of no home.
    if folder.parts[0].startswith("~"):
        return default_cache_dir() / "hub"
    chosen = any(os.environ.get(variable) for variable in _HUB_VARIABLES)
    return folder if chosen or _is_usable(folder) else default_cache_dir() / "hub"


def _is_usable(folder: Path) -> bool:
    """Whether the folder is there, be it for reading only, or can be made."""
    if os.access(folder, os.R_OK | os.X_OK):
        return True
    nearest = next(parent for parent in folder.parents if os.access(parent, os.F_OK))
    return os.access(nearest, os.W_OK | os.X_OK)


def _private_folder() -> Path:
    """Make a folder that no other user can have put models into."""
    try:
        folder = Path(tempfile.gettempdir()) / f"pairscore-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EnvironmentFault(
            f"there is neither a home folder nor a temporary one to write to ({error}); "
            "set PAIRSCORE_CACHE_DIR to a folder with space"
        ) from None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not mine or stat.S_IMODE(found.st_mode) & 0o077:
        raise EnvironmentFault(
            f"{folder} is not this user's alone; set PAIRSCORE_CACHE_DIR to a folder that is"
        )
    return folder
