"""The exported model in the cache folder: made once, whole or made again."""

import os
import subprocess
import sys

import numpy as np
import pytest

from pairscore.clip import load_model
from pairscore.errors import EnvironmentFault, ModelError
from pairscore.settings import Settings
from tests.tiny_clip import make_tiny_clip

PIXELS = np.random.default_rng(1).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("tiny"))


def load(folder, cache, **more):
    return load_model(
        Settings.model_validate({"model": str(folder), "cache_dir": cache, "device": "cpu"} | more)
    )


def exports(cache):
    return sorted(path for path in (cache / "onnx").iterdir() if path.is_dir())


def test_a_second_start_takes_the_export_of_the_first(folder, tmp_path):
    first = load(folder, tmp_path).embed_images(PIXELS)
    (export,) = exports(tmp_path)
    written = {file: file.stat().st_mtime_ns for file in export.iterdir()}

    second = load(folder, tmp_path).embed_images(PIXELS)

    assert {file: file.stat().st_mtime_ns for file in export.iterdir()} == written
    np.testing.assert_array_equal(first, second)


def test_precisions_have_exports_of_their_own(folder, tmp_path):
    load(folder, tmp_path)
    load(folder, tmp_path, precision="int8")

    assert len(exports(tmp_path)) == 2


@pytest.mark.parametrize("name", ["vision.onnx", "vision.bin", "text.onnx", "text.bin"])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_export_is_made_again(name, damage, folder, tmp_path):
    whole = load(folder, tmp_path).embed_images(PIXELS)
    (export,) = exports(tmp_path)
    file = export / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"\xff")

    again = load(folder, tmp_path).embed_images(PIXELS)

    assert file.read_bytes() == content
    np.testing.assert_array_equal(whole, again)


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": 3}'])
def test_an_export_without_a_manifest_is_made_again(manifest, folder, tmp_path):
    whole = load(folder, tmp_path).embed_images(PIXELS)
    (export,) = exports(tmp_path)
    (export / "manifest.json").write_text(manifest)

    np.testing.assert_array_equal(load(folder, tmp_path).embed_images(PIXELS), whole)


def test_an_export_that_was_copied_elsewhere_is_used(folder, tmp_path):
    load(folder, tmp_path)
    (export,) = exports(tmp_path)
    for file in export.iterdir():
        os.utime(file, ns=(0, 0))

    load(folder, tmp_path)

    assert all(file.stat().st_mtime_ns == 0 for file in export.iterdir())


def test_processes_that_start_together_make_one_export(folder, tmp_path):
    code = (
        "import sys; from pairscore.clip import load_model\n"
        "from pairscore.settings import Settings\n"
        "load_model(Settings(model=sys.argv[1], cache_dir=sys.argv[2], device='cpu'))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder), str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]

    assert [process.communicate(timeout=120)[1] for process in processes] == ["", "", ""]
    assert len(exports(tmp_path)) == 1
    assert load(folder, tmp_path).embed_images(PIXELS).shape == (2, 24)


def test_a_cache_that_cannot_be_written_is_one_line(folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()

    with pytest.raises(EnvironmentFault, match="PAIRSCORE_CACHE_DIR") as raised:
        load(folder, blocked)

    assert "\n" not in str(raised.value)


def test_an_activation_that_the_graph_lacks_is_left_to_torch(tmp_path):
    silu = {"hidden_act": "silu"}
    make_tiny_clip(tmp_path / "model", text=silu, vision=silu)

    with pytest.raises(ModelError, match="silu; use backend torch"):
        load(tmp_path / "model", tmp_path / "cache")
    assert load(tmp_path / "model", tmp_path / "cache", backend="torch").backend == "torch"


def test_a_failed_export_leaves_nothing_behind(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = make_tiny_clip(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_model.encoder.layers.1.mlp.fc2.bias"]
    save_file(tensors, folder / "model.safetensors")

    with pytest.raises(ModelError, match=r"lack text_model\.encoder\.layers\.1\.mlp\.fc2\.bias"):
        load(folder, tmp_path / "cache")
    assert exports(tmp_path / "cache") == []
