"""Errors that end a command: each carries one line that says what is wrong, where, and what to do.

PairscoreError
├── InputError         a file or an argument of the user's      exit code 2
├── SettingsError      a setting                                 exit code 2
├── ModelError         a model that cannot be had or used        exit code 3
└── EnvironmentFault   something this machine lacks              exit code 3

A bad row is none of these: it is a `pairscore.pair.Failure`, which is data.
"""

from typing import ClassVar, Final

_OF_SCORING: Final = frozenset(
    {
        "PIL",
        "certifi",
        "huggingface_hub",
        "idna",
        "numpy",
        "onnx",
        "onnxruntime",
        "protego",
        "pycurl",
        "redis",
        "safetensors",
        "simplejpeg",
        "tokenizers",
        "torch",
        "torchvision",
        "transformers",
        "xxhash",
    }
)


class PairscoreError(Exception):
    """A dead end that the user can do something about; its text is one line."""

    exit_code: ClassVar[int] = 1


class InputError(PairscoreError):
    """A file or an argument is not usable as it is."""

    exit_code = 2


class SettingsError(PairscoreError):
    """A setting has a value it cannot have."""

    exit_code = 2


class ModelError(PairscoreError):
    """The model cannot be found, downloaded, read or run."""

    exit_code = 3


class EnvironmentFault(PairscoreError):
    """This machine lacks something that the chosen settings need."""

    exit_code = 3


def what_is_missing(error: ModuleNotFoundError) -> str | None:
    """What to install for a module that was not found; None if it is none of scoring's."""
    name = (error.name or "").partition(".")[0]
    if name not in _OF_SCORING:
        return None
    return f"scoring needs {name} and more; install them with: pip install 'pairscore[score]'"
