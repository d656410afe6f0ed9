"""A loaded model as its users see it: its names, its fingerprint, its threads, its imports."""

import logging
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pairscore.clip import Capabilities, load_model, probe
from pairscore.clip.fingerprint import file_digest
from pairscore.settings import Settings
from tests.tiny_clip import edit_json, make_tiny_clip

PIXELS = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def load(folder, cache, capabilities: Capabilities | None = None, **more):
    settings = {"model": str(folder), "cache_dir": cache, "device": "cpu"} | more
    return load_model(Settings.model_validate(settings), capabilities)


def fingerprint(folder, cache, **more):
    return load(folder, cache, **more).fingerprint


def test_a_model_says_what_it_is(folder, cache):
    model = load(folder, cache)

    assert model.name == str(folder)
    assert (model.device, model.precision, model.backend) == ("cpu", "fp32", "onnx")
    assert model.preprocessing.crop == (32, 32)
    assert model.logit_scale == pytest.approx(100, rel=1e-3)
    assert model.dimensions == 24
    assert model.batch_size >= 16
    assert load(folder, cache, batch_size=7).batch_size == 7


def test_a_fingerprint_is_readable_and_stays(folder, cache, tmp_path):
    first = fingerprint(folder, cache)

    assert first.startswith("tiny:onnx-fp32:")
    assert fingerprint(folder, tmp_path) == first
    assert fingerprint(make_tiny_clip(tmp_path / "tiny"), cache) == first


def test_a_fingerprint_tells_backends_and_precisions_apart(folder, cache):
    kinds = [("onnx", "fp32"), ("onnx", "int8"), ("torch", "fp32"), ("torch", "bf16")]

    found = {fingerprint(folder, cache, backend=b, precision=p).split(":")[-1] for b, p in kinds}

    assert len(found) == 4


def test_a_fingerprint_tells_int8_for_lesser_cpus_apart(folder, cache):
    old = Capabilities(False, False, True, 1, "x86_64", frozenset({"avx2"}))
    new = Capabilities(False, False, True, 1, "x86_64", frozenset({"avx2", "avx512_vnni"}))

    models = [load(folder, cache, machine, precision="int8") for machine in (old, new)]

    assert models[0].fingerprint != models[1].fingerprint


def change_weight(folder):
    tensors = dict(load_file(folder / "model.safetensors"))
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"] * 1.01
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_mean(folder):
    edit_json(folder / "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])


def change_tokenizer(folder):
    edit_json(folder / "tokenizer.json", normalizer=None)


@pytest.mark.parametrize("change", [change_weight, change_mean, change_tokenizer])
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_fingerprint_changes_with_whatever_changes_a_similarity(change, backend, cache, tmp_path):
    folder = make_tiny_clip(tmp_path / "tiny")
    before = fingerprint(folder, cache, backend=backend)
    change(folder)

    assert fingerprint(folder, cache, backend=backend) != before


def test_the_digest_of_a_large_file_is_kept_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("pairscore.clip.fingerprint._SMALL", 4)
    file = tmp_path / "weights"
    file.write_bytes(b"first content")
    first = file_digest(file, tmp_path)
    (kept,) = (tmp_path / "digests").iterdir()
    kept.write_text("f" * 64)

    assert file_digest(file, tmp_path) == "f" * 64
    file.write_bytes(b"second, longer content")
    assert file_digest(file, tmp_path) not in {first, "f" * 64}


@pytest.mark.parametrize("kept", ["nothing", "no text"])
def test_a_digest_that_cannot_be_kept_is_computed(kept, tmp_path, monkeypatch):
    monkeypatch.setattr("pairscore.clip.fingerprint._SMALL", 4)
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    cache = tmp_path / "cache"
    expected = file_digest(file, cache)
    (digest,) = (cache / "digests").iterdir()
    digest.unlink()
    if kept == "nothing":
        # Not even root can create anything in this.
        (cache / "digests").rmdir()
        (cache / "digests").touch()
    else:
        digest.mkdir()

    assert file_digest(file, cache) == expected
    assert [path.name for path in cache.glob("digests/*")] in ([], [digest.name])


def test_a_digest_that_is_no_text_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("pairscore.clip.fingerprint._SMALL", 4)
    file = tmp_path / "weights"
    file.write_bytes(b"content")
    expected = file_digest(file, tmp_path)
    (kept,) = (tmp_path / "digests").iterdir()
    kept.write_bytes(b"\xff" * 64)

    assert file_digest(file, tmp_path) == expected
    assert kept.read_text() == expected


def test_warming_up_runs_both_encoders_and_closing_ends_them(folder, cache):
    model = load(folder, cache)
    model.warm_up()
    model.close()

    with pytest.raises(RuntimeError):
        model.embed_images(PIXELS)


def test_captions_are_tokenised_while_another_thread_embeds(folder, cache):
    model = load(folder, cache)
    tokens = model.tokenize(["a red dog"])
    expected = model.embed_images(PIXELS)

    with ThreadPoolExecutor(3) as pool:
        tokenised = [pool.submit(model.tokenize, ["a red dog"] * 50) for _ in range(20)]
        embedded = [pool.submit(model.embed_images, PIXELS) for _ in range(20)]

    assert all(future.result() == tokens * 50 for future in tokenised)
    for future in embedded:
        np.testing.assert_allclose(future.result(), expected, atol=1e-6)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_read_only_pixels_are_taken_without_a_warning(backend, folder, cache):
    model = load(folder, cache, backend=backend)
    pixels = PIXELS.copy()
    pixels.flags.writeable = False

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.embed_images(pixels).shape == (5, 24)


def run(code, *arguments, env=None):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=env)


HEAVY = "[name for name in ('torch', 'transformers', 'onnx', 'onnxruntime') if name in sys.modules]"


def test_importing_the_package_imports_nothing_heavy():
    assert run(f"import sys, pairscore.clip; print({HEAVY})").stdout.strip() == "[]"


@pytest.mark.skipif(probe().cuda, reason="asks torch for the GPU")
def test_scoring_through_onnx_never_imports_torch(folder, cache):
    load(folder, cache)
    code = f"""
import sys
import numpy as np
from pairscore.clip import load_model
from pairscore.settings import Settings
model = load_model(Settings(model=sys.argv[1], cache_dir=sys.argv[2], device="cpu"))
model.warm_up()
print({HEAVY})
"""

    result = run(code, folder, cache)

    assert result.stdout.strip() == "['onnxruntime']"
    assert result.stderr == ""


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_loading_prints_nothing(backend, folder, tmp_path, capfd):
    load(folder, tmp_path, backend=backend).warm_up()

    assert capfd.readouterr() == ("", "")


def test_onnx_runtime_reports_nothing_to_its_maker(folder, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    code = """
import sys
from pairscore.clip import load_model
from pairscore.settings import Settings
load_model(Settings(model=sys.argv[1], device="cpu", backend="onnx")).warm_up()
"""
    unset = ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "PAIRSCORE_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in unset}

    run(code, folder, env=environment | {"HOME": str(home)})

    assert [path.relative_to(home).as_posix() for path in home.glob("*/*")] == [".cache/pairscore"]


def test_the_demo_model_says_what_it_knows_on_every_use(tmp_path, caplog):
    for _ in range(2):
        load("demo", tmp_path).close()

    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all("only knows coloured shapes" in warning for warning in warnings)


def test_other_models_come_without_a_warning(folder, cache, caplog):
    load(folder, cache)

    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
