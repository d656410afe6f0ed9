"""Which variables of the environment no service knows: a mistake, said with the nearest name.

Services are often given the variables of all of them, so that one is checked by each: its group,
and its name in there.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from pydantic import BaseModel

from pairscore.errors import SettingsError
from pairscore.settings import ENV_PREFIX

# What Kubernetes puts into every pod for a service called pairscore or pairscore-something.
_SERVICE_LINK: Final = re.compile(
    r"[A-Z0-9_]*_(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)


def refuse_unknown(environment: Mapping[str, str], kinds: Iterable[type[BaseModel]]) -> None:
    """Make sure that every variable of our prefix is known.

    Args:
        environment: of the process.
        kinds: the settings that there are.

    Raises:
        SettingsError: one is not; names all that are not, and of each the nearest that is.
    """
    known = {name for kind in kinds for name in names_of(kind)}
    groups = {name.split("__")[0] for name in known if "__" in name}
    unknown = [
        name
        for variable, value in sorted(environment.items())
        if variable.upper().startswith(ENV_PREFIX) and not _is_service_link(variable, value)
        for name in _set_by(variable, value, groups)
        if _setting(name) not in known
    ]
    if unknown:
        listed = "; ".join(f"setting {name}: {_complaint(name, known)}" for name in unknown)
        raise SettingsError(f"{listed}; docs/reference.md has them all")


def names_of(kind: type[BaseModel]) -> Iterator[str]:
    """The variables of a service's settings."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from (f"{ENV_PREFIX}{name}__{each}".upper() for each in inner.model_fields)
        else:
            yield f"{ENV_PREFIX}{name}".upper()


def _set_by(variable: str, value: str, groups: Collection[str]) -> Iterator[str]:
    """What a variable sets: what it is called, or where that is a group, each key of its JSON."""
    if variable.upper() not in groups:
        yield variable
        return
    try:
        found = json.loads(value)
    except ValueError:
        return  # said by the service whose group it is
    if isinstance(found, dict):
        yield from (f"{variable}__{key}" for key in found)


def _setting(name: str) -> str:
    """The setting that is meant: what comes after two names is a key of its value."""
    return "__".join(name.upper().split("__")[:2])


def _complaint(name: str, known: Collection[str]) -> str:
    bare = [each.removeprefix(ENV_PREFIX) for each in known]
    near = get_close_matches(name.upper().removeprefix(ENV_PREFIX), bare, n=1, cutoff=0.7)
    return f"there is no such setting{f'; the nearest is {ENV_PREFIX}{near[0]}' if near else ''}"


def _is_service_link(name: str, value: str) -> bool:
    if name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://")):
        return True
    return _SERVICE_LINK.fullmatch(name) is not None
