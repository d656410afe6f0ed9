"""What a model wants done to an image, read from its preprocessor's configuration."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from pairscore.errors import ModelError

_BICUBIC = 3
# transformers' CLIPImageProcessor under the names that it has had.
_PROCESSORS = (
    None,
    "CLIPFeatureExtractor",
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
)
_DEFAULTS: Mapping[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": _BICUBIC,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize, crop, rescale, normalise, with lengths in pixels.

    The shortest edge becomes `resize` (bicubic, antialiased), `crop` (height, width) is cut from
    the centre, and then each of red, green and blue becomes (value * rescale - mean) / std.
    """

    resize: int
    crop: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float


def read_preprocessing(folder: Path, image_size: int, name: str) -> Preprocessing:
    """Read `preprocessor_config.json`, or the part of `processor_config.json` that replaces it.

    Args:
        folder: of the model.
        image_size: height and width that the model takes, in pixels.
        name: of the model, for messages.

    Raises:
        ModelError: neither is there, or it asks for something else than CLIP's preprocessing.
    """
    config = {**_DEFAULTS, **_read(folder, name)}
    _check_supported(config, name)
    crop = _crop(config["crop_size"])
    resize = _shortest_edge(config["size"])
    if resize is None or crop is None:
        raise ModelError(
            f"model {name}: unsupported preprocessing, size {config['size']}, "
            f"crop_size {config['crop_size']}; a shortest edge and a crop are needed"
        )
    if crop != (image_size, image_size):
        raise ModelError(
            f"model {name}: images are cut to {crop[0]}x{crop[1]} but the model takes "
            f"{image_size}x{image_size}"
        )
    return Preprocessing(
        resize=resize,
        crop=crop,
        mean=_channels(config, "image_mean", 0.0, name),
        std=_channels(config, "image_std", 1.0, name),
        rescale=_rescale(config, name),
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    # transformers looks at them in this order, too.
    for file, key in (
        ("processor_config.json", "image_processor"),
        ("preprocessor_config.json", None),
    ):
        path = folder / file
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ModelError(f"model {name}: {path} is not JSON; download it again") from None
        if not isinstance(config, dict):
            raise ModelError(f"model {name}: {path} is not a JSON object; download it again")
        section = config.get(key) if key else config
        if isinstance(section, dict):
            return section
    raise ModelError(f"model {name} has no preprocessor_config.json in {folder}; it cannot be used")


def _check_supported(config: Mapping[str, Any], name: str) -> None:
    kind = config.get("image_processor_type") or config.get("feature_extractor_type")
    wrong = [key for key in ("do_resize", "do_center_crop") if not config[key]]
    if kind not in _PROCESSORS:
        problem = f"image processor {kind}; only CLIPImageProcessor is"
    elif wrong:
        problem = f"{wrong[0]} false; only true is"
    elif config["resample"] != _BICUBIC:
        problem = f"resample {config['resample']}; only {_BICUBIC} (bicubic) is"
    else:
        return
    raise ModelError(f"model {name}: preprocessing is not supported, it has {problem}")


def _shortest_edge(size: Any) -> int | None:  # noqa: ANN401  # JSON
    if isinstance(size, dict) and size.keys() == {"shortest_edge"}:
        size = size["shortest_edge"]
    return size if _is_length(size) else None


def _crop(size: Any) -> tuple[int, int] | None:  # noqa: ANN401  # JSON
    if isinstance(size, dict):
        height, width = size.get("height"), size.get("width")
    else:
        height = width = size
    return (height, width) if _is_length(height) and _is_length(width) else None


def _is_length(value: Any) -> TypeGuard[int]:  # noqa: ANN401  # JSON
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> TypeGuard[float]:  # noqa: ANN401  # JSON
    """Whether it is a number; infinity and NaN, which Python's JSON knows, are none."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _rescale(config: Mapping[str, Any], name: str) -> float:
    if not config["do_rescale"]:
        return 1.0
    factor = config["rescale_factor"]
    if not _is_number(factor) or factor <= 0:
        raise ModelError(f"model {name}: rescale_factor is {factor!r}; a number above 0 is needed")
    return float(factor)


def _channels(
    config: Mapping[str, Any], key: str, neutral: float, name: str
) -> tuple[float, float, float]:
    if not config["do_normalize"]:
        return neutral, neutral, neutral
    values = config[key]
    if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
        raise ModelError(f"model {name}: {key} is {values!r}; three numbers are needed")
    red, green, blue = (float(value) for value in values)
    if key == "image_std" and min(red, green, blue) <= 0:
        raise ModelError(f"model {name}: {key} is {values!r}; all must be above zero")
    return red, green, blue
