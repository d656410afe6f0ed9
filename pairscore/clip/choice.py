"""Decides where and how a model runs from what is asked for and what this machine can do."""

import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pairscore.errors import EnvironmentFault, SettingsError
from pairscore.settings import Settings

ChosenDevice: TypeAlias = Literal["cpu", "cuda", "mps"]
ChosenPrecision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
ChosenBackend: TypeAlias = Literal["torch", "onnx"]

_X86 = frozenset({"x86_64", "amd64", "i686"})
# CPU flags with which products of uint8 and int8 are added without overflow in between.
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16", "asimdbf16"})
# One of these is there wherever torch could find a GPU under Linux (NVIDIA, WSL, ROCm).
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this machine can do; `cpu_flags` as the kernel names them, empty where it does not."""

    cuda: bool
    mps: bool
    onnxruntime: bool
    cores: int
    machine: str
    cpu_flags: frozenset[str]

    @property
    def vnni(self) -> bool:
        """Whether the CPU multiplies int8 at four times the speed of fp32."""
        return bool(self.cpu_flags & _VNNI)

    @property
    def bf16(self) -> bool:
        """Whether the CPU multiplies bf16 faster than fp32."""
        return bool(self.cpu_flags & _BF16)

    @property
    def int8_limit(self) -> int:
        """The greatest int8 weight with which no intermediate sum of this CPU overflows."""
        return 63 if self.machine.lower() in _X86 and not self.vnni else 127


@dataclass(frozen=True, slots=True)
class Choice:
    """Where and how the model runs, and a line for people on why, one for each."""

    device: ChosenDevice
    precision: ChosenPrecision
    backend: ChosenBackend
    why: tuple[str, ...]


def choose(settings: Settings, capabilities: Capabilities) -> Choice:
    """Fill in what is left to `auto` and refuse what does not go together.

    Raises:
        SettingsError: device, precision and backend do not go together.
        EnvironmentFault: this machine lacks what is asked for.
    """
    device, why_device = _device(settings, capabilities)
    precision, why_precision = _precision(settings, device, capabilities)
    backend, why_backend = _backend(settings, device, precision, capabilities)
    return Choice(device, precision, backend, (why_device, why_precision, why_backend))


def probe() -> Capabilities:
    """Look at this machine; torch is imported only where there may be a GPU."""
    cuda, mps = _accelerators() if _may_have_accelerator() else (False, False)
    return Capabilities(
        cuda=cuda,
        mps=mps,
        onnxruntime=importlib.util.find_spec("onnxruntime") is not None,
        cores=available_cores(),
        machine=platform.machine(),
        cpu_flags=_cpu_flags(Path("/proc/cpuinfo")),
    )


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the cores that this process may use: its affinity, and its container's quota."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota, period = _cpu_quota(cgroup)
    return max(1, min(cores, -(-quota // period))) if quota > 0 else cores


def _device(settings: Settings, capabilities: Capabilities) -> tuple[ChosenDevice, str]:
    asked = settings.device
    if asked == "auto":
        # What only the CPU can do is asked for: the CPU is meant.
        if settings.precision == "int8" or settings.backend == "onnx":
            return "cpu", "device cpu: int8 and onnx run on it alone"
        if capabilities.cuda:
            return "cuda", "device cuda: torch finds a GPU"
        if capabilities.mps:
            return "mps", "device mps: torch finds Apple's GPU"
        return "cpu", "device cpu: there is no GPU that torch can use"
    if asked == "cuda" and not capabilities.cuda:
        raise EnvironmentFault("device cuda: torch finds no CUDA GPU here; use device auto or cpu")
    if asked == "mps" and not capabilities.mps:
        raise EnvironmentFault("device mps: torch finds no Apple GPU here; use device auto or cpu")
    return asked, f"device {asked}: asked for"


def _precision(
    settings: Settings, device: ChosenDevice, capabilities: Capabilities
) -> tuple[ChosenPrecision, str]:
    asked = settings.precision
    if asked == "auto":
        if device == "cuda":
            return "fp16", "precision fp16: the usual one on a GPU"
        return "fp32", f"precision fp32: the usual one on {device}{_faster(device, capabilities)}"
    if asked == "fp16" and device == "cpu":
        raise SettingsError("precision fp16 is slow on cpu and not offered; use fp32, bf16 or int8")
    if asked == "int8" and device != "cpu":
        raise SettingsError(f"precision int8 runs on cpu only, not on {device}; use fp16 there")
    if asked == "bf16" and device == "cpu" and not capabilities.bf16:
        return asked, "precision bf16: asked for, though this CPU is not known to be fast at it"
    return asked, f"precision {asked}: asked for"


def _faster(device: ChosenDevice, capabilities: Capabilities) -> str:
    if device != "cpu":
        return ""
    return "; int8 is about three times as fast" if capabilities.vnni else "; int8 is faster"


def _backend(
    settings: Settings,
    device: ChosenDevice,
    precision: ChosenPrecision,
    capabilities: Capabilities,
) -> tuple[ChosenBackend, str]:
    asked = settings.backend
    if asked == "torch" and precision == "int8":
        raise SettingsError("precision int8 needs backend onnx, not torch")
    if asked == "onnx" and device != "cpu":
        raise SettingsError(f"backend onnx runs on cpu only, not on {device}; use torch there")
    if asked == "onnx" and precision == "bf16":
        raise SettingsError("precision bf16 needs backend torch, not onnx")
    needs_onnx = asked == "onnx" or precision == "int8"
    if needs_onnx and not capabilities.onnxruntime:
        raise EnvironmentFault(
            "onnxruntime is not installed; install it, or use backend torch at fp32"
        )
    if asked != "auto":
        return asked, f"backend {asked}: asked for"
    if device != "cpu":
        return "torch", f"backend torch: the one for {device}"
    if precision == "bf16":
        return "torch", "backend torch: the one for bf16"
    if not capabilities.onnxruntime:
        return "torch", "backend torch: onnxruntime is not installed, which is faster on cpu"
    return "onnx", f"backend onnx: the faster one on cpu at {precision}"


def _may_have_accelerator() -> bool:
    system = platform.system()
    return system != "Linux" or any(Path(file).exists() for file in _GPU_FILES)


def _accelerators() -> tuple[bool, bool]:
    import torch

    return torch.cuda.is_available(), torch.backends.mps.is_available()


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    if not cpuinfo.is_file():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def _cpu_quota(cgroup: Path) -> tuple[int, int]:
    """Microseconds of CPU per period of a container (cgroup v2, then v1); 0 where unlimited."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        paths = [cgroup / file for file in files]
        if all(path.is_file() for path in paths):
            quota, period = " ".join(path.read_text(encoding="utf-8") for path in paths).split()
            return (0 if quota in {"max", "-1"} else int(quota)), int(period)
    return 0, 1
