"""What this machine has, as far as it matters here."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ct_attn import __version__

REQUIRED = (
    "torch", "monai", "lightning", "numpy", "scipy", "nibabel", "pydicom", "highdicom", "pydantic", "PyYAML",
    "safetensors", "matplotlib", "jinja2", "typer", "rich",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the examination."""

    subject: str
    state: str


def examine() -> list[Finding]:
    """Versions of all that is used, devices, threads and number formats."""
    return [
        Finding(subject="ct_attn", state=__version__),
        Finding(
            subject="python", state=f"{platform.python_version()} on {platform.system()} {platform.machine()}"
        ),
        *_packages(),
        *_devices(),
    ]


def _packages() -> Iterator[Finding]:
    for name in REQUIRED:
        try:
            yield Finding(subject=name, state=version(name))
        except PackageNotFoundError:
            yield Finding(subject=name, state=f"MISSING: pip install {name}")


def _devices() -> Iterator[Finding]:
    import torch  # noqa: PLC0415 # seconds; only the packages' versions are wanted when it is missing

    from ct_attn.device import computes_bf16  # noqa: PLC0415

    threads = torch.get_num_threads()
    yield Finding(subject="processor", state=f"{os.cpu_count()} cores, torch uses {threads} threads")
    native = computes_bf16(torch.device("cpu"))
    yield Finding(subject="bf16 on CPU", state="yes" if native else "no: fp32 is used")
    if not torch.cuda.is_available():
        yield Finding(subject="CUDA", state="none: the CPU is used")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory_gb = properties.total_memory / 1e9
        yield Finding(subject=f"cuda:{index}", state=f"{properties.name}, {memory_gb:.0f} GB")
