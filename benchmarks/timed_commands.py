"""Commands that are run once: their time is kept, and what was cut off begins anew."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import provenance

Words = list[str | Path]
#: A program that asks to be killed with its parent (PR_SET_PDEATHSIG), then becomes the command behind it.
_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else works in ``folder``, or this ends here."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{folder}: another process works here; wait for it, or choose another folder with -o")
        yield


def once(
    what: str,
    words: Sequence[str | Path],
    product: Path,
    folder: Path,
    *,
    threads: int | None = None,
    **facts: int | str,
) -> dict[str, Any]:
    """Run ``words`` unless ``folder/what.json`` says it was done with ``facts``; return that record.

    The file or folder ``product``, which a command that was cut off may have begun to make, is removed
    first. The record has seconds, machine, commit and ``facts``. The command computes with ``threads``
    (by default all cores), and does not outlive this process.
    """
    record = folder / f"{what}.json"
    if record.is_file():
        done: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if {name: done.get(name) for name in facts} == facts:
            return done
        record.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    remove(product)
    origin = provenance()
    start = time.perf_counter()
    with (folder / f"{what}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(bound(words), stdout=log, stderr=log, env=environment(threads))
        try:
            _, status, used = os.wait4(process.pid, 0)  # its own seconds: others may run beside it
        except BaseException:  # Ctrl-C
            process.kill()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    taken = {
        "wall_s": time.perf_counter() - start, "cpu_s": used.ru_utime + used.ru_stime, **origin, **facts
    }  # fmt: skip
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(taken), encoding="utf-8")
    partial.replace(record)
    return taken


def forget_others(folder: Path, facts: Mapping[str, int | str]) -> None:
    """Remove what ``folder`` holds of a training of other ``facts``, or of none that came to its end.

    Its predictions and scores go with it.
    """
    record = folder / "trained.json"
    done = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if {name: done.get(name) for name in facts} != facts:
        remove(folder)


def remove(product: Path) -> None:
    """``product`` at once under its name, so that a kill leaves nothing half there."""
    if product.is_file():
        product.unlink()
    elif product.exists():
        doomed = product.with_name(f".doomed-{product.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        product.rename(doomed)
        shutil.rmtree(doomed)


def bound(words: Sequence[str | Path]) -> Words:
    """The command that does not outlive its parent, where the system can promise that."""
    return [sys.executable, "-c", _WITH_PARENT, *words] if sys.platform == "linux" else [*words]


def environment(threads: int | None = None) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1)}


def seconds_per_step(wall_s: Mapping[int, float]) -> tuple[float, float]:
    """Per step and beside the steps, from the seconds of a shorter and a longer training, by their steps.

    Raises ``ValueError`` where the longer one was not slower: the machine did something else.
    """
    short, long = sorted(wall_s)
    per_step = (wall_s[long] - wall_s[short]) / (long - short)
    if per_step <= 0:
        raise ValueError(f"{long} steps took {wall_s[long]:.1f} s and {short} steps {wall_s[short]:.1f} s")
    return per_step, wall_s[short] - short * per_step


def steps_in(seconds: float, per_step: float, beside: float, *, epochs: int) -> int:
    """How many steps fit, rounded down to whole epochs; ``ValueError`` where not even one epoch's do."""
    fitting = int((seconds - beside) / per_step) // epochs
    if fitting < 1:
        raise ValueError(
            f"{seconds:.0f} s are not enough: {beside:.0f} s pass beside steps of {per_step:.1f} s"
        )
    return epochs * fitting
