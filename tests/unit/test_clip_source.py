"""Where a model's files come from, and what is said when they cannot be had."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file
from transformers import CLIPModel

from pairscore.clip import load_model
from pairscore.clip.source import find_local, find_model
from pairscore.errors import ModelError
from pairscore.settings import Settings
from tests.tiny_clip import edit_json, make_tiny_clip

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIXELS = np.random.default_rng(1).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    return make_tiny_clip(tmp_path / "tiny")


def load(name, tmp_path, backend="onnx"):
    settings = {"model": str(name), "cache_dir": tmp_path / "cache", "backend": backend}
    return load_model(Settings.model_validate(settings | {"device": "cpu"}))


def embed(name, tmp_path, backend="onnx"):
    return load(name, tmp_path, backend).embed_images(PIXELS)


def test_the_demo_model_comes_with_the_package():
    assert find_model("demo").folder.parts[-3:] == ("pairscore", "demo", "model")


def test_sharded_weights_are_those_of_one_file(folder, tmp_path):
    whole = embed(folder, tmp_path)
    CLIPModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1

    np.testing.assert_allclose(embed(folder, tmp_path), whole, atol=1e-6)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_pickled_checkpoint_is_read(backend, folder, tmp_path):
    whole = embed(folder, tmp_path)
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    np.testing.assert_allclose(embed(folder, tmp_path, backend), whole, atol=1e-5)


class Planted:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_pickled_checkpoint_runs_no_code(backend, folder, tmp_path):
    torch.save({"logit_scale": Planted(tmp_path / "planted")}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"pytorch_model\.bin cannot be read"):
        load(folder, tmp_path, backend)
    assert not (tmp_path / "planted").exists()


def remove(name):
    return lambda folder: (folder / name).unlink()


def spoil(name, content):
    return lambda folder: (folder / name).write_text(content)


def configure(**changes):
    return lambda folder: edit_json(folder / "config.json", **changes)


def index(content):
    def replace(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(content)

    return replace


def drop_tensor(name):
    def drop(folder):
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return drop


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove("config.json"), "has no config.json"),
        (spoil("config.json", "{"), "config.json cannot be read"),
        (spoil("config.json", "[]"), "not a JSON object"),
        (configure(model_type="bert"), "not a CLIP"),
        (configure(vision_config={"hidden_size": 31}), "attention heads cannot share"),
        (configure(vision_config={"num_channels": 1}), "num_channels 1"),
        (configure(text_config={"num_hidden_layers": None}), "num_hidden_layers None"),
        (remove("model.safetensors"), "has no weights"),
        (spoil("model.safetensors", "not weights at all"), "weights cannot be read"),
        (remove("preprocessor_config.json"), "preprocessor_config.json"),
        (remove("tokenizer.json"), "no tokenizer"),
        (drop_tensor("vision_model.post_layernorm.bias"), "lack vision_model.post_layernorm.bias"),
        (index("{"), "does not name its weights"),
        (index("[]"), "does not name its weights"),
        (index('{"metadata": {}}'), "does not name its weights"),
        (index('{"weight_map": []}'), "does not name its weights"),
        (index('{"weight_map": {}}'), "does not name its weights"),
        (index('{"weight_map": {"a": 5}}'), "does not name its weights"),
        (index('{"weight_map": {"a": {}}}'), "does not name its weights"),
        (index('{"weight_map": {"a": "gone.safetensors"}}'), "weights cannot be read"),
        (configure(text_config="none"), "text_config 'none'"),
        (configure(vision_config={"image_size": [[1], [2]]}), "image_size [[1], [2]]"),
        (configure(vision_config={"layer_norm_eps": None}), "layer_norm_eps None"),
        (spoil("preprocessor_config.json", "[]"), "not a JSON object"),
        (drop_tensor("logit_scale"), "lack logit_scale"),
    ],
)
def test_a_broken_folder_is_one_line_that_names_the_model(damage, says, backend, folder, tmp_path):
    damage(folder)

    with pytest.raises(ModelError) as raised:
        load(folder, tmp_path, backend)

    assert says in str(raised.value)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        load(name, tmp_path)


def test_a_name_that_is_no_hub_id_is_refused(tmp_path):
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        load("what is this", tmp_path)


def test_without_a_network_a_model_that_is_not_here_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(ModelError, match="the hub cannot be reached"):
        load("nobody/nothing", tmp_path)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: the list of files, and the files."""

    folder: ClassVar[Path]
    requests: ClassVar[list[str]]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        self.requests.append(self.path)
        path = self.path.split("?")[0].strip("/").split("/")
        if path[:4] == ["api", "models", "someone", "tiny"]:
            names = sorted(file.name for file in self.folder.iterdir())
            content = self.listing(path[4] if len(path) > 4 else "info", names)
            kind = "application/json"
        elif path[:3] == ["someone", "tiny", "resolve"]:
            content, kind = (self.folder / path[4]).read_bytes(), "application/octet-stream"
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{abs(hash(content))}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def listing(self, what, names):
        if what == "tree":
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": (self.folder / name).stat().st_size,
                    "oid": name,
                }
                for name in names
            ]
            return json.dumps(tree).encode()
        siblings = [{"rfilename": name} for name in names]
        return json.dumps({"id": "someone/tiny", "sha": COMMIT, "siblings": siblings}).encode()

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(folder):
    handler = type("OneHub", (Hub,), {"folder": folder, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def run_with_hub(name, address, tmp_path):
    """Load in a process of its own, as the hub's client reads its settings when it is imported."""
    code = (
        "import sys; from pairscore.clip import load_model\n"
        "from pairscore.settings import Settings\n"
        "from pairscore.errors import ModelError\n"
        "try:\n"
        "    print(load_model(Settings(model=sys.argv[1], cache_dir=sys.argv[2])).fingerprint)\n"
        "except ModelError as error: print(error)\n"
    )
    environment = os.environ | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", code, name, str(tmp_path / "cache")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("pickled", [False, True])
def test_a_hub_model_is_downloaded_once_and_quietly(pickled, hub, folder, tmp_path):
    if pickled:
        torch.save(CLIPModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    (folder / "open_clip_weights.safetensors").write_bytes(b"x" * 1000)

    handler, address = hub
    first = run_with_hub("someone/tiny", address, tmp_path)
    asked = len(handler.requests)
    second = run_with_hub("someone/tiny", address, tmp_path)

    assert first.stderr == ""
    assert first.stdout.startswith("tiny:onnx-fp32:")
    assert second.stdout == first.stdout
    assert len(handler.requests) == asked
    assert not any("open_clip" in path for path in handler.requests)


def test_a_download_that_lacks_a_shard_is_completed(hub, folder, tmp_path):
    CLIPModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink()
    first = run_with_hub("someone/tiny", hub[1], tmp_path)
    lost, *_ = (tmp_path / "hub").rglob("model-00002-of-*.safetensors")
    lost.resolve().unlink()
    lost.unlink()

    second = run_with_hub("someone/tiny", hub[1], tmp_path)

    assert first.stdout.startswith("tiny:onnx-fp32:")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert lost.is_file()


def test_a_hub_cache_that_cannot_be_written_is_one_line(hub, tmp_path):
    (tmp_path / "hub").touch()

    result = run_with_hub("someone/tiny", hub[1], tmp_path)

    assert result.stderr == ""
    assert "set HF_HOME" in result.stdout
    assert result.stdout.count("\n") == 1


def test_a_hub_model_that_does_not_exist_is_one_line(hub, tmp_path):
    result = run_with_hub("someone/else", hub[1], tmp_path)

    assert result.stderr == ""
    assert "check its spelling" in result.stdout
    assert result.stdout.count("\n") == 1


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr("pairscore.clip.hub._PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")

        with pytest.raises(ModelError, match="the hub cannot be reached"):
            load("nobody/nothing", tmp_path)


def test_a_folder_wins_over_a_hub_id(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "someone" / "tiny")
    monkeypatch.chdir(tmp_path)

    assert load("someone/tiny", tmp_path).name == "someone/tiny"


def test_looking_for_a_model_here_uses_no_network(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    assert find_local(str(folder)) == folder
    assert find_local("nobody/nothing") is None
    with pytest.raises(ModelError, match="no such folder"):
        find_local("./nowhere")


def test_a_hub_model_is_here_only_with_every_shard(folder, monkeypatch, tmp_path):
    CLIPModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink()
    # As the hub's client lays it out.
    kept = tmp_path / "hub" / "models--someone--tiny"
    snapshot = kept / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    assert find_local("someone/tiny") == snapshot
    next(snapshot.glob("model-00002-of-*.safetensors")).unlink()
    assert find_local("someone/tiny") is None
