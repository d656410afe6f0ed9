"""Similarities against transformers' own CLIPModel, for every backend and shape of model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

from pairscore.clip import ClipModel, load_model
from pairscore.settings import Settings
from tests.tiny_clip import MAX_TOKENS, edit_json, make_tiny_clip

CAPTIONS = [
    "a red circle",
    "the photo of two blue squares and a dog that nobody has ever seen anywhere",
    "a",
    "two dogs",
    "Größe: 日本語 🙂",
    "!?",
    "a red <|endoftext|> circle",
    "red",
]

SHAPES: dict[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu": {"text": {"hidden_act": "gelu"}, "vision": {"hidden_act": "gelu"}},
    "tanh_gelu": {
        "text": {"hidden_act": "gelu_pytorch_tanh"},
        "vision": {"hidden_act": "gelu_new"},
    },
    "old_end_of_text": {"text": {"eos_token_id": 2}},
    "one_layer": {"text": {"num_hidden_layers": 1}, "vision": {"num_hidden_layers": 1}},
    "unequal_towers": {
        "text": {"hidden_size": 24, "num_attention_heads": 2, "layer_norm_eps": 1e-3},
        "vision": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3},
        "projection_dim": 16,
    },
    "patches_that_do_not_fill_the_image": {"image_size": 30, "patch_size": 7},
}


@dataclass
class Reference:
    """transformers' answer for a model: the pixels, before rescaling, and the similarities."""

    folder: Path
    pixels: NDArray[np.uint8]
    similarities: NDArray[np.float32]


def refer(folder: Path) -> Reference:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    size = json.loads((folder / "config.json").read_text())["vision_config"]["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (11, 3, size, size), dtype=np.uint8)
    processor = CLIPImageProcessor.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)(
        CAPTIONS, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    images = processor(images=torch.tensor(pixels), return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**tokens, **images).logits_per_image
    return Reference(folder, pixels, logits.numpy())


def load(folder: Path, cache: Path, backend: str = "onnx", precision: str = "fp32") -> ClipModel:
    settings = {"model": str(folder), "backend": backend, "precision": precision, "device": "cpu"}
    return load_model(Settings.model_validate(settings | {"cache_dir": cache}))


def similarities(model: ClipModel, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    captions = model.embed_captions(model.tokenize(CAPTIONS))
    return model.similarity(model.embed_images(pixels), captions)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return refer(make_tiny_clip(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_similarities_are_those_of_transformers(shape, backend, tmp_path, cache):
    reference = refer(make_tiny_clip(tmp_path, **SHAPES[shape]))
    model = load(tmp_path, cache, backend)

    assert reference.similarities.std() > 3
    np.testing.assert_allclose(
        similarities(model, reference.pixels), reference.similarities, atol=1e-3
    )


def test_other_mean_std_and_scale_are_those_of_transformers(tmp_path, cache):
    make_tiny_clip(tmp_path)
    config = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.4, 1.5], "rescale_factor": 0.01}
    edit_json(tmp_path / "preprocessor_config.json", **config)
    reference = refer(tmp_path)

    found = similarities(load(tmp_path, cache), reference.pixels)

    np.testing.assert_allclose(found, reference.similarities, atol=1e-3)


@pytest.mark.parametrize(
    ("backend", "precision", "least"),
    [("onnx", "fp32", 0.999999), ("onnx", "int8", 0.97), ("torch", "bf16", 0.995)],
)
def test_embeddings_of_a_lower_precision_stay_close(backend, precision, least, reference, cache):
    exact = load(reference.folder, cache)
    model = load(reference.folder, cache, backend, precision)
    tokens = model.tokenize(CAPTIONS)

    images = (exact.embed_images(reference.pixels) * model.embed_images(reference.pixels)).sum(1)
    captions = (exact.embed_captions(tokens) * model.embed_captions(tokens)).sum(1)

    assert images.min() > least
    assert captions.min() > least


@pytest.mark.parametrize(
    ("backend", "precision"), [("onnx", "fp32"), ("onnx", "int8"), ("torch", "fp32")]
)
def test_a_pair_has_the_same_similarity_in_every_batch(backend, precision, reference, cache):
    model = load(reference.folder, cache, backend, precision)
    tokens = model.tokenize(CAPTIONS)
    images = model.embed_images(np.concatenate([reference.pixels] * 4))
    captions = model.embed_captions(tokens * 9)

    for row, pixels in enumerate(reference.pixels):
        alone = model.embed_images(pixels[None])
        for column, token in enumerate(tokens):
            single = model.similarity(alone, model.embed_captions([token])).item()
            together = model.similarity(images[row][None], captions[column][None]).item()
            assert single == pytest.approx(together, abs=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "int8", "bf16"])
def test_embeddings_are_float32_of_length_one_in_the_order_given(precision, reference, cache):
    model = load(reference.folder, cache, "auto", precision)
    count = 40
    words = [" ".join(["red"] * (1 + i * 7 % 15)) for i in range(count)]

    images = model.embed_images(np.concatenate([reference.pixels] * 4)[:count])
    captions = model.embed_captions(model.tokenize(words))

    for embeddings in (images, captions):
        assert embeddings.dtype == np.float32
        assert embeddings.shape == (count, 24)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    for index in (0, 17, 39):
        alone = model.embed_captions(model.tokenize([words[index]]))[0]
        assert (captions @ alone).argmax() == words.index(words[index])


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_nothing_in_gives_nothing_out(backend, reference, cache):
    model = load(reference.folder, cache, backend)

    assert model.embed_images(reference.pixels[:0]).shape == (0, 24)
    assert model.embed_captions([]).shape == (0, 24)


def test_half_precision_weights_are_computed_with_in_full(tmp_path, cache):
    make_tiny_clip(tmp_path)
    CLIPModel.from_pretrained(tmp_path, dtype=torch.float16).save_pretrained(tmp_path)
    reference = refer(tmp_path)

    found = similarities(load(tmp_path, cache), reference.pixels)

    np.testing.assert_allclose(found, reference.similarities, atol=1e-3)


def test_bfloat16_weights_are_computed_with_in_full(tmp_path, cache):
    make_tiny_clip(tmp_path)
    CLIPModel.from_pretrained(tmp_path, dtype=torch.bfloat16).save_pretrained(tmp_path)
    reference = refer(tmp_path)

    found = similarities(load(tmp_path, cache), reference.pixels)

    np.testing.assert_allclose(found, reference.similarities, atol=1e-3)


def test_pixels_of_another_shape_are_refused(reference, cache):
    model = load(reference.folder, cache)

    with pytest.raises(ValueError, match="uint8"):
        model.embed_images(reference.pixels[:, :, :16])
    with pytest.raises(ValueError, match="float32"):
        model.embed_images(reference.pixels.astype(np.float32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("fp16", 0.5), ("bf16", 3)])
def test_a_gpu_gives_the_similarities_of_transformers(precision, tolerance, reference, cache):
    settings = {"model": str(reference.folder), "device": "cuda", "precision": precision}
    model = load_model(Settings.model_validate(settings | {"cache_dir": cache}))

    found = similarities(model, reference.pixels)

    np.testing.assert_allclose(found, reference.similarities, atol=tolerance)
