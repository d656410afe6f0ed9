"""What a CLIP's `config.json` says about its two towers, with transformers' defaults filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pairscore.errors import ModelError

_TEXT_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "eos_token_id": 49407,
}
_VISION_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}


@dataclass(frozen=True, slots=True)
class Tower:
    """One transformer encoder: its widths, its depth and its activation (transformers' name)."""

    width: int
    layers: int
    heads: int
    activation: str
    epsilon: float


@dataclass(frozen=True, slots=True)
class Architecture:
    """Both towers; `image_size` and `patch_size` in pixels, `max_tokens` with both special tokens.

    `eos_token_id` is the configured one. 2 stands for the old rule of CLIP's first configurations:
    the end of a caption is its highest token id (transformers' CLIPTextModel).
    """

    vision: Tower
    text: Tower
    image_size: int
    patch_size: int
    max_tokens: int
    vocabulary: int
    eos_token_id: int


def read_architecture(config: Mapping[str, Any], name: str) -> Architecture:
    """Read a parsed `config.json`.

    Raises:
        ModelError: it is not that of a CLIP with square RGB images.
    """
    kind = config.get("model_type")
    if kind != "clip":
        raise ModelError(f"model {name} is not a CLIP: its config.json has model_type {kind!r}")
    try:
        text = _section(config, "text_config", _TEXT_DEFAULTS)
        vision = _section(config, "vision_config", _VISION_DEFAULTS)
    except ValueError as error:
        raise ModelError(f"model {name}: config.json has {error}") from None
    for key in ("image_size", "patch_size"):
        value = vision[key]
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            vision[key] = value[0]
    if vision["num_channels"] != 3:
        raise ModelError(
            f"model {name} has num_channels {vision['num_channels']}; only 3 is supported"
        )
    try:
        return Architecture(
            vision=_tower(vision),
            text=_tower(text),
            image_size=_positive(vision, "image_size"),
            patch_size=_positive(vision, "patch_size"),
            max_tokens=_positive(text, "max_position_embeddings"),
            vocabulary=_positive(text, "vocab_size"),
            eos_token_id=_positive(text, "eos_token_id"),
        )
    except ValueError as error:
        raise ModelError(f"model {name}: config.json has {error}") from None


def _section(config: Mapping[str, Any], key: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    section = {**defaults, **(_object(config, key) or {})}
    # transformers lets an old `text_config_dict`, with its defaults, win over `text_config`.
    legacy = _object(config, f"{key}_dict")
    return section if legacy is None else {**section, **defaults, **legacy}


def _object(config: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = config.get(key)
    if value is None or isinstance(value, dict):
        return value
    message = f"{key} {value!r}, which is not an object"
    raise ValueError(message)


def _tower(section: Mapping[str, Any]) -> Tower:
    width, heads = _positive(section, "hidden_size"), _positive(section, "num_attention_heads")
    if width % heads:
        message = f"hidden_size {width}, which {heads} attention heads cannot share"
        raise ValueError(message)
    epsilon = section["layer_norm_eps"]
    if not isinstance(epsilon, float):
        message = f"layer_norm_eps {epsilon!r}, which is not supported"
        raise ValueError(message)
    return Tower(
        width=width,
        layers=_positive(section, "num_hidden_layers"),
        heads=heads,
        activation=str(section["hidden_act"]),
        epsilon=epsilon,
    )


def _positive(section: Mapping[str, Any], key: str) -> int:
    value = section[key]
    if not isinstance(value, int) or value < 1:
        message = f"{key} {value!r}, which is not supported"
        raise ValueError(message)
    return value
