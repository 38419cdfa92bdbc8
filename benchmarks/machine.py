"""What a measurement ran on, in one line."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import torch


def describe(device: torch.device | None = None) -> str:
    """Processor, cores and the formats it computes bf16 in; or the GPU; and torch's version."""
    if device is not None and device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    formats = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in about.get("flags", "").split()]
    name = about.get("model name", "unknown processor")
    return f"{name}, {os.cpu_count()} cores, {' '.join(formats) or 'no bf16'}, torch {torch.__version__}"


@cache
def provenance() -> dict[str, str]:
    """The machine, and the commit at which this process began; ``+`` after it: with changes beside it."""
    device = torch.device("cuda") if torch.cuda.is_available() else None
    root = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout

    changed = git("status", "--porcelain", "--untracked-files=no", "ct_attn", "pipelines", "benchmarks/*.py")
    return {
        "machine": describe(device),
        "commit": git("rev-parse", "--short", "HEAD").strip() + "+" * bool(changed),
    }
