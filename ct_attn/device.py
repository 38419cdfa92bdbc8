"""Where a network computes, and in which number format."""

from __future__ import annotations

import os
from typing import Literal, TypeVar

import torch

from ct_attn.errors import UserError

Network = TypeVar("Network", bound=torch.nn.Module)


def choose_device(name: str = "auto", *, touch: bool = True) -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA where there is one, else the CPU.

    Without ``touch`` a GPU is not used yet: several processes would all begin on the first.
    Raises :class:`UserError` when the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if touch or not torch.cuda.is_available():
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name}",
            expected="a device of this machine",
            found="none such",
            remedy="see ct-attn doctor",
        ) from error
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16, so that it pays.

    Decided by the processor's flags and never by timing, so that one machine always
    decides alike and a training can be repeated.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # An older torch cannot tell; fp32 is right everywhere.
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
    return False


def choose_precision(requested: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> torch.dtype:
    """``torch.float32``, ``torch.bfloat16`` or ``torch.float16``, resolving ``auto`` (never to the last).

    Raises :class:`UserError` for float16 on a CPU, which computes it slowly and without range.
    """
    if requested == "fp16" and device.type == "cpu":
        raise UserError(
            "training.precision fp16",
            expected="a GPU",
            found="the CPU",
            remedy="--set training.precision=auto, which takes bf16 where the processor computes in it",
        )
    if requested == "auto":
        return torch.bfloat16 if computes_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[requested]


def total_bytes(device: torch.device) -> float:
    """The memory that ``device`` has, used or not."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def channels_last(network: Network) -> Network:
    """``network`` (in 2D or 3D) with its weights channels last, in which convolutions are fastest."""
    flat = all(parameter.dim() < 5 for parameter in network.parameters())
    layout = torch.channels_last if flat else torch.channels_last_3d
    return network.to(memory_format=layout)  # type: ignore[call-overload,no-any-return] # torch's stubs lack it
