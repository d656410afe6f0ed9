"""Small file systems for tests, which are soon full."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, for all to write to, at a new folder.

    Where none can be mounted (as root, or by sudo without a password), the test ends: failed in CI,
    else skipped.
    """
    folder.mkdir()
    try:
        _as_root("mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no disk can be mounted: {error}")
    try:
        yield folder
    finally:
        _as_root("umount", "--lazy", str(folder))


def remount(folder: Path, options: str) -> None:
    """Give a small disk another size, or other rights."""
    _as_root("mount", "-o", f"remount,{options}", str(folder))


def _as_root(*command: str) -> None:
    prefix: Sequence[str] = () if os.geteuid() == 0 else ("sudo", "--non-interactive")
    subprocess.run([*prefix, *command], capture_output=True, check=True)
