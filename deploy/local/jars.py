"""Apache Kafka as its Maven jars: fetched once for each pom.xml, complete or not at all."""

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from deploy.local.ways import WayClosed

OLDEST_JAVA: Final = 17

_HERE = Path(__file__).resolve().parent
_POM = _HERE / "pom.xml"
_CACHE = _HERE / ".kafka"
_JAVA_SECONDS = 30.0
_FETCH_SECONDS = 900.0
_PARTIAL = "partial-"
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def java(environment: Mapping[str, str]) -> str:
    """The path of a Java that runs Kafka: of JAVA_HOME, else on the PATH.

    Raises:
        WayClosed: there is none, or it is older than OLDEST_JAVA.
    """
    home = environment.get("JAVA_HOME")
    found = _program("java", environment, [str(Path(home, "bin"))] if home else [])
    _, said = _run([found, "-version"], environment, _JAVA_SECONDS)
    version = _VERSION.search(said)
    if version is None:
        raise WayClosed(f"{found} does not run: {said.strip()[:200] or 'it says nothing'}")
    if int(version[1]) < OLDEST_JAVA:
        raise WayClosed(f"{found} is Java {version[1]}, and Kafka needs {OLDEST_JAVA}")
    return found


def kafka_jars(environment: Mapping[str, str], cache: Path = _CACHE) -> Path:
    """The folder of Kafka's jars, fetched with Maven where it is not there.

    Raises:
        WayClosed: Maven is not there, or fails.
    """
    jars = cache / hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]
    if jars.is_dir():
        return jars
    maven = _program("mvn", environment)
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cache / "lock", timeout=_FETCH_SECONDS):
            if not jars.is_dir():
                _fetch(maven, environment, jars)
    except Timeout:
        raise WayClosed(
            f"another process has been fetching Kafka into {cache} for too long"
        ) from None
    return jars


def _fetch(maven: str, environment: Mapping[str, str], jars: Path) -> None:
    # Of one that was killed.
    for partial in jars.parent.glob(f"{_PARTIAL}*"):
        shutil.rmtree(partial)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=_PARTIAL) as folder:
        fetched = Path(folder, "jars")
        code, said = _run(
            [
                *(maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(_POM)),
                *("dependency:copy-dependencies", f"-DoutputDirectory={fetched}"),
            ],
            environment,
            _FETCH_SECONDS,
        )
        if code != 0:
            lines = [line for line in said.splitlines() if "ERROR" in line] or [said]
            raise WayClosed(f"Maven cannot fetch Kafka: {lines[0].strip()[:500]}")
        fetched.rename(jars)


def _program(name: str, environment: Mapping[str, str], first: Sequence[str] = ()) -> str:
    path = ":".join([*first, environment.get("PATH", "")])
    if (found := shutil.which(name, path=path)) is None:
        raise WayClosed(f"{name} is not installed")
    return found


def _run(
    command: list[str], environment: Mapping[str, str], within: float
) -> tuple[int | None, str]:
    """How a command ended, if it did, and what it said, standard error included."""
    try:
        ended = subprocess.run(  # noqa: S603 - the commands are written above
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=within,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return ended.returncode, ended.stdout
