"""What is read from a preprocessor's configuration, and what is refused."""

import json

import pytest
from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

from pairscore.clip.preprocessing import read_preprocessing
from pairscore.errors import ModelError
from tests.tiny_clip import make_tiny_clip

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

OLDEST = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "resample": 3,
    "size": 224,
}


def read(folder, size=224):
    return read_preprocessing(folder, size, "m")


def write(folder, config, file="preprocessor_config.json"):
    (folder / file).write_text(json.dumps(config))


def test_the_oldest_form_is_read(tmp_path):
    write(tmp_path, OLDEST)

    found = read(tmp_path)

    assert (found.resize, found.crop) == (224, (224, 224))
    assert (found.mean, found.std) == (MEAN, STD)
    assert found.rescale == pytest.approx(1 / 255)


def test_what_transformers_saves_by_itself_is_read(tmp_path):
    processor = CLIPImageProcessor(
        size={"shortest_edge": 40},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.1, 0.2, 0.3],
    )
    processor.save_pretrained(tmp_path)

    found = read(tmp_path, 32)

    assert (found.resize, found.crop, found.mean) == (40, (32, 32), (0.1, 0.2, 0.3))


def test_what_transformers_saves_with_the_tokenizer_is_read(tmp_path):
    processor = CLIPImageProcessor(
        size={"shortest_edge": 48}, crop_size={"height": 32, "width": 32}, image_std=[0.5, 0.6, 0.7]
    )
    tokenizer = CLIPTokenizer.from_pretrained(make_tiny_clip(tmp_path / "tiny"))
    CLIPProcessor(processor, tokenizer).save_pretrained(tmp_path / "saved")

    found = read(tmp_path / "saved", 32)

    assert (found.resize, found.crop, found.std) == (48, (32, 32), (0.5, 0.6, 0.7))


def test_what_is_left_out_is_as_in_clip(tmp_path):
    write(tmp_path, {})

    assert read(tmp_path).mean == MEAN


def test_normalising_and_rescaling_can_be_off(tmp_path):
    write(tmp_path, {"do_normalize": False, "do_rescale": False})

    found = read(tmp_path)

    assert (found.mean, found.std, found.rescale) == ((0, 0, 0), (1, 1, 1), 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "ViTImageProcessor"),
        ({"do_resize": False}, "do_resize"),
        ({"do_center_crop": False}, "do_center_crop"),
        ({"resample": 2}, "resample 2"),
        ({"size": {"height": 224, "width": 224}}, "shortest edge"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size"),
        ({"crop_size": 336}, "336x336 but the model takes 224x224"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"image_std": 0.5}, "three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "zero"),
        ({"image_std": [0.5, -0.5, 0.5]}, "zero"),
        ({"image_mean": ["0.5", "0.5", "0.5"]}, "three numbers"),
        ({"image_mean": [0.5, None, 0.5]}, "three numbers"),
        ({"image_mean": [0.5, float("nan"), 0.5]}, "three numbers"),
        ({"image_mean": [0.5, 10**400, 0.5]}, "three numbers"),
        ({"rescale_factor": "small"}, "rescale_factor is 'small'"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"feature_extractor_type": []}, "image processor"),
    ],
)
def test_what_is_not_clips_preprocessing_is_refused_in_one_line(change, says, tmp_path):
    write(tmp_path, OLDEST | change)

    with pytest.raises(ModelError, match=says) as raised:
        read(tmp_path)

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", ["big", None, 0, -224, True, [224], {}, 224.5])
def test_a_length_that_is_none_is_refused_in_one_line(length, tmp_path):
    for change in (
        {"size": length},
        {"size": {"shortest_edge": length}},
        {"crop_size": length},
        {"crop_size": {"height": length, "width": 224}},
        {"crop_size": {"height": 224, "width": length}},
    ):
        write(tmp_path, OLDEST | change)
        with pytest.raises(ModelError, match="unsupported preprocessing") as raised:
            read(tmp_path)
        assert "\n" not in str(raised.value)


def test_a_broken_file_is_said_to_be(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")

    with pytest.raises(ModelError, match="not JSON"):
        read(tmp_path)


def test_a_model_without_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        read(tmp_path)
