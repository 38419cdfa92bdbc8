"""Files made from a model once and kept beside it: converted and compiled networks, and choices."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

from ct_attn.model_file import ModelFile

FOLDER_NAME = "compiled"

#: Compiled networks kept of one model; the ones used longest ago go first.
MOST_COMPILED = 12


def cache_folder(model: ModelFile) -> Path:
    """Beside the model where that can be written to, else in the user's own cache."""
    beside = model.path.parent / FOLDER_NAME
    home = beside if beside.is_dir() else model.path.parent
    if os.access(home, os.W_OK):
        return beside
    return Path.home() / ".cache" / "ct_attn" / short(model.digest)


def short(text: str) -> str:
    """A name for ``text`` that fits into file names."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def processor() -> str:
    """A name for this processor: its model, instructions and the number of cores."""
    about = [platform.machine(), platform.processor(), str(os.cpu_count())]
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
        about += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return short("\n".join(about))


def forget_oldest(folder: Path, pattern: str) -> None:
    """Keep no more than :data:`MOST_COMPILED` of the files that ``pattern`` matches."""
    files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[MOST_COMPILED:]:
        file.unlink(missing_ok=True)
