"""Commands that are run once: their time is kept, and what was cut off begins anew."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

Words = list[str | Path]


def once(
    what: str, words: Sequence[str | Path], product: Path, folder: Path, **facts: int
) -> dict[str, float]:
    """Run ``words`` unless the record ``folder/what.json`` says it was done; return the record.

    ``product``, what a command that was cut off may have begun to make, is removed first.
    """
    record = folder / f"{what}.json"
    if record.is_file():
        done: dict[str, float] = json.loads(record.read_text(encoding="utf-8"))
        return done
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(product, ignore_errors=True)
    start, cpu = time.perf_counter(), cpu_seconds()
    with (folder / f"{what}.log").open("w", encoding="utf-8") as log:
        subprocess.run(words, stdout=log, stderr=log, check=True, env=environment())
    taken = {"wall_s": time.perf_counter() - start, "cpu_s": cpu_seconds() - cpu, **facts}
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(taken), encoding="utf-8")
    partial.replace(record)
    return taken


def forget_other_steps(folder: Path, steps: int) -> None:
    """Remove what ``folder`` holds of a training with another number of steps than ``steps``."""
    record = folder / "trained.json"
    if record.is_file() and json.loads(record.read_text(encoding="utf-8"))["steps"] != steps:
        shutil.rmtree(folder)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}


def cpu_seconds() -> float:
    """Of all that was run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_per_step(wall_s: dict[int, float]) -> tuple[float, float]:
    """Per step and beside the steps, from the seconds of a shorter and a longer training, by their steps."""
    short, long = sorted(wall_s)
    per_step = (wall_s[long] - wall_s[short]) / (long - short)
    return per_step, wall_s[short] - short * per_step


def steps_in(seconds: float, per_step: float, beside: float, *, epochs: int) -> int:
    """How many steps fit, rounded down to whole epochs."""
    return epochs * max(1, int((seconds - beside) / per_step) // epochs)
