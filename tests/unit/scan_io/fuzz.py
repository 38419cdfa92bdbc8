"""Damages a scan in many ways and reads each; run as a process of its own, which can be limited.

Prints one JSON line: how many were read, how many refused, and what must not happen.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

from ct_attn.errors import UserError
from ct_attn.scan_io.options import ReadingOptions
from ct_attn.scan_io.scan import read_scan

SECONDS = 5  # for one file of a few kB
MEMORY_BYTES = 600 << 20  # more than what is loaded when it starts
RESIDENT_KB = 60 << 10
OPTIONS = ReadingOptions(max_voxels=200_000)


def damaged(whole: bytes, random: np.random.Generator, header_bytes: int) -> bytes:
    """``whole`` with bytes changed, cut off, cut out, doubled or put in; half of it within the header."""
    content = bytearray(whole)
    end = len(content) if random.random() < 0.5 else min(header_bytes, len(content))
    kind = random.integers(6)
    place = int(random.integers(end))
    length = int(random.integers(1, 64))
    if kind == 0:
        return bytes(content[:place])
    if kind == 1:
        del content[place : place + length]
    elif kind == 2:
        content[place:place] = random.bytes(length)
    elif kind == 3:
        content[place:place] = content[place : place + length]
    else:
        for changed in random.integers(end, size=random.integers(1, 9)):
            content[changed] = (
                random.integers(256) if kind == 4 else content[changed] ^ (1 << random.integers(8))
            )
    return bytes(content)


def outcome(path: Path, sound: np.ndarray, *, has_checksum: bool) -> str:
    """``read``, ``refused``, or what went wrong."""
    try:
        volume = read_scan(path, OPTIONS)
    except UserError as error:
        message = str(error)
        if "\n" in message or "fits into memory" in message or "Doe" in message:
            return f"a bad refusal: {message}"
        return "refused"
    if volume.hu.shape != volume.grid.shape or volume.hu.size > OPTIONS.max_voxels:
        return f"a volume of {volume.hu.shape}"
    if not np.isfinite(volume.hu).all() or volume.hu.min() < -1024:
        return "a volume that is no HU"
    if has_checksum and not np.array_equal(volume.hu, sound):
        return "other numbers in spite of a checksum"
    return "read"


def run(source: Path, target: Path, count: int, seed: int) -> dict[str, object]:
    """Damage the file ``target`` within ``source`` (the same, or a folder of slices) ``count`` times."""
    random = np.random.default_rng(seed)
    whole = target.read_bytes()
    sound = read_scan(source, OPTIONS).hu
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (loaded + MEMORY_BYTES,) * 2)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("a file took too long"))
    counts = {"read": 0, "refused": 0}
    wrong = []
    for number in range(count):
        target.write_bytes(damaged(whole, random, 1200))
        signal.alarm(SECONDS)
        try:
            found = outcome(source, sound, has_checksum=target.suffix == ".gz")
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        signal.alarm(0)
        if found in counts:
            counts[found] += 1
        else:
            wrong.append(f"{number}: {found}")
            shutil.copy(target, target.parent.parent / f"wrong_{seed}_{number}")
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    if grown_kb > RESIDENT_KB:
        wrong.append(f"memory grew by {grown_kb} kB")
    return counts | {"wrong": wrong, "grown_kb": grown_kb}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
