"""Chooses the device and tells what it can do."""

from __future__ import annotations

import atexit
import functools

import torch
from torch import distributed


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA, then MPS, then the CPU. ValueError if it is not there."""
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is not one of auto, cpu, cuda, cuda:N, mps") from error
    if resolved.type == "cuda" and not (
        torch.cuda.is_available() and (resolved.index or 0) < torch.cuda.device_count()
    ):
        raise ValueError(f"device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {device!r}: this machine has no MPS")
    return resolved


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic runs in the device's own instructions, not emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        # oneDNN may be told to leave them alone (ONEDNN_MAX_CPU_ISA)
        return bool(has_instructions) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return False


def fast_autocast(device: torch.device) -> torch.autocast:
    """Runs networks in bfloat16 if the device has it; compute losses outside."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bf16(device))


def device_name(device: torch.device) -> str:
    """The device's name for captions: the GPU's, or "CPU (N threads)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        n = torch.get_num_threads()
        return f"CPU ({n} thread{'s' * (n != 1)})"
    return device.type.upper()


@functools.cache
def leave_group_at_exit() -> None:
    """Makes this process leave the group of an `accelerate launch` when it ends.

    Otherwise gloo's threads may still run when the interpreter ends: it aborts ("terminate called without an
    active exception"), and the launcher calls a finished run failed.
    """
    atexit.register(_leave_group)


def _leave_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
