"""Where and how a model runs, for what is asked and what the machine has."""

from pathlib import Path
from typing import Any

import pytest

from pairscore.clip import Capabilities, available_cores, choose, probe
from pairscore.errors import EnvironmentFault, SettingsError
from pairscore.settings import Settings


def capabilities(**known) -> Capabilities:
    plain: dict[str, Any] = {
        "cuda": False,
        "mps": False,
        "onnxruntime": True,
        "cores": 2,
        "machine": "x86_64",
    }
    return Capabilities(**(plain | {"cpu_flags": frozenset()} | known))


def settings(**asked) -> Settings:
    return Settings.model_validate(asked)


@pytest.mark.parametrize(
    ("asked", "machine", "chosen"),
    [
        ({}, {}, ("cpu", "fp32", "onnx")),
        ({}, {"cuda": True}, ("cuda", "fp16", "torch")),
        ({}, {"mps": True}, ("mps", "fp32", "torch")),
        ({}, {"cuda": True, "mps": True}, ("cuda", "fp16", "torch")),
        ({}, {"onnxruntime": False}, ("cpu", "fp32", "torch")),
        ({"device": "cpu"}, {"cuda": True}, ("cpu", "fp32", "onnx")),
        ({"precision": "int8"}, {"cuda": True}, ("cpu", "int8", "onnx")),
        ({"backend": "onnx"}, {"cuda": True}, ("cpu", "fp32", "onnx")),
        ({"precision": "bf16"}, {}, ("cpu", "bf16", "torch")),
        ({"precision": "bf16"}, {"cuda": True}, ("cuda", "bf16", "torch")),
        ({"precision": "fp32"}, {"cuda": True}, ("cuda", "fp32", "torch")),
        ({"precision": "fp16"}, {"mps": True}, ("mps", "fp16", "torch")),
        ({"backend": "torch"}, {}, ("cpu", "fp32", "torch")),
    ],
)
def test_auto_is_filled_in_by_device(asked, machine, chosen):
    choice = choose(settings(**asked), capabilities(**machine))

    assert (choice.device, choice.precision, choice.backend) == chosen
    assert [line.split()[1].rstrip(":") for line in choice.why] == list(chosen)


@pytest.mark.parametrize(
    ("asked", "machine", "error", "says"),
    [
        ({"device": "cuda"}, {}, EnvironmentFault, "no CUDA GPU"),
        ({"device": "mps"}, {}, EnvironmentFault, "no Apple GPU"),
        ({"precision": "fp16"}, {}, SettingsError, "fp16 is slow on cpu"),
        (
            {"device": "cuda", "precision": "int8"},
            {"cuda": True},
            SettingsError,
            "int8 runs on cpu",
        ),
        ({"device": "cuda", "backend": "onnx"}, {"cuda": True}, SettingsError, "onnx runs on cpu"),
        ({"backend": "torch", "precision": "int8"}, {}, SettingsError, "int8 needs backend onnx"),
        ({"backend": "onnx", "precision": "bf16"}, {}, SettingsError, "bf16 needs backend torch"),
        ({"backend": "onnx"}, {"onnxruntime": False}, EnvironmentFault, "not installed"),
        ({"precision": "int8"}, {"onnxruntime": False}, EnvironmentFault, "not installed"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(asked, machine, error, says):
    with pytest.raises(error, match=says) as raised:
        choose(settings(**asked), capabilities(**machine))

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("machine", "flags", "limit"),
    [
        ("x86_64", {"avx2"}, 63),
        ("x86_64", {"avx2", "avx512_vnni"}, 127),
        ("AMD64", {"avx_vnni"}, 127),
        ("aarch64", {"asimd"}, 127),
    ],
)
def test_int8_weights_are_kept_small_where_sums_would_overflow(machine, flags, limit):
    assert capabilities(machine=machine, cpu_flags=frozenset(flags)).int8_limit == limit


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_containers_quota_bounds_the_cores(files, most, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    assert available_cores(tmp_path) == min(most, available_cores(tmp_path / "none"))


def test_an_unlimited_container_has_all_the_cores(tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000\n")

    assert available_cores(tmp_path) == available_cores(Path("/nonexistent"))


def test_this_machine_is_found_out():
    found = probe()

    assert found.cores >= 1
    assert found.onnxruntime
    assert found.machine


@pytest.mark.parametrize(
    ("device", "flags", "warned"),
    [("cpu", {"avx2"}, True), ("cpu", {"avx512_bf16"}, False), ("cuda", {"avx2"}, False)],
)
def test_bf16_on_a_cpu_without_it_is_said_to_be_slow(device, flags, warned):
    machine = capabilities(cuda=True, cpu_flags=frozenset(flags))

    choice = choose(settings(precision="bf16", device=device), machine)

    assert ("not known to be fast" in " ".join(choice.why)) is warned
