"""Loaders of training patches side by side: patches per second and memory on the same volumes.

    python -m venv peers && peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/data.py --peers-python peers/bin/python

Every loader prepares the same synthetic scans of 512 x 512 x 200 voxels in a process of
its own and then draws patches of one size, one thread each; without ``--peers-python``
nnU-Net is left out. Each round asks every loader once, one after the other, so that all
share what else the machine does; ratios are medians over the rounds. Memory is the peak
of the process beyond its imports, mapped files included. The table goes to
``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from data_loaders import LOADERS, PATCH, SETS, SPACING_MM
from machine import describe

RESULTS = Path(__file__).parent / "results"
WORKER = Path(__file__).with_name("data_loaders.py")
SHAPE = (512, 512, 200)
OURS, NNUNET = "ct_attn", "nnU-Net"
#: Middle and half axes of body and organs, as fractions of the volume.
BODY = ((0.5, 0.5, 0.5), (0.42, 0.32, 2.0))
ORGANS = [
    ((0.5, 0.42, 0.55), (0.12, 0.04, 0.08)),
    ((0.76, 0.6, 0.7), (0.07, 0.09, 0.15)),
    ((0.68, 0.65, 0.4), (0.05, 0.06, 0.14)),
    ((0.32, 0.65, 0.38), (0.05, 0.06, 0.14)),
]


def ellipsoid(middle: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    terms = zip(axes, SHAPE, middle, half, strict=True)
    return sum(((axis / size - m) / h).astype(np.float32) ** 2 for axis, size, m, h in terms) < 1


def draw_case(folder: Path, number: int) -> None:
    """A body with four organs and noise as int16 HU, and its labels, as .nii.gz."""
    rng = np.random.default_rng(number)
    hu = np.where(ellipsoid(*BODY), 20, -1000).astype(np.int16)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for code, (middle, half) in enumerate(ORGANS, start=1):
        moved = tuple(place + float(rng.uniform(-0.02, 0.02)) for place in middle)
        inside = ellipsoid(moved, half)
        hu[inside] = 60 + 20 * code
        labels[inside] = code
    hu += (15 * rng.standard_normal(SHAPE, dtype=np.float32)).astype(np.int16)
    affine = np.diag([-SPACING_MM[0], SPACING_MM[1], SPACING_MM[2], 1.0])
    nib.save(nib.Nifti1Image(hu, affine), folder / f"image_{number}.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / f"label_{number}.nii.gz")


class Worker:
    """A loader in its process; what it says on standard error is kept for when it dies."""

    def __init__(self, loader: str, python: str, folder: Path) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 # open as long as the process
        threads = dict.fromkeys(("OMP_NUM_THREADS", "BLOSC_NTHREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [python, str(WORKER), loader, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | threads,
        )
        self.prepared = self.answer()

    def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"{self.process.args} ended:\n{self.errors.read()}")
        return json.loads(line)

    def draw(self, changes: str, seconds: float) -> dict[str, float]:
        assert self.process.stdin is not None
        print(changes, seconds, file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of drawing per loader, set and round")
    parser.add_argument("--peers-python", help="interpreter with nnU-Net (benchmarks/requirements.txt)")
    parser.add_argument("--note", default="", help="what else the machine did, for the record")
    options = parser.parse_args()
    names = [name for name in LOADERS if name != NNUNET or options.peers_python]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.cases):
            draw_case(Path(folder), number)
        workers = {}
        for name in names:
            python = options.peers_python if name == NNUNET else sys.executable
            workers[name] = Worker(name, python, Path(folder))
            print(name, workers[name].prepared, file=sys.stderr)
        drawn = measure(workers, options.rounds, options.seconds)
        for worker in workers.values():
            worker.end()
    result = {
        "machine": describe(),
        "note": options.note,
        "volumes": f"{options.cases} of {'x'.join(map(str, SHAPE))}",
        "patch": "x".join(map(str, PATCH)),
        "rounds": options.rounds,
        "preparing": {name: worker.prepared for name, worker in workers.items()},
        "drawing": drawn,
    }
    (RESULTS / "data.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    (RESULTS / "data.md").write_text(text, encoding="utf-8")
    print(text)


def measure(
    workers: dict[str, Worker], rounds: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Per set of changes and loader: medians over the rounds, and the peak of memory."""
    answers: dict[str, dict[str, list[dict[str, float]]]] = {
        changes: {name: [] for name in workers} for changes in SETS
    }
    for number in range(rounds + 1):  # the first warms up
        for changes, by_loader in answers.items():
            for name, worker in workers.items():
                answer = worker.draw(changes, seconds)
                if number:
                    by_loader[name].append(answer)
    return {
        changes: {name: summarised(own, by_loader[OURS]) for name, own in by_loader.items()}
        for changes, by_loader in answers.items()
    }


def summarised(own: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, float]:
    seconds = [answer["seconds_per_patch"] for answer in own]
    ratios = [s / answer["seconds_per_patch"] for s, answer in zip(seconds, ours, strict=True)]
    return {
        "patches_per_s": 1 / statistics.median(seconds),
        "times_as_slow": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
        "peak_mib": max(answer["peak_mib"] for answer in own),
    }


SAID = {
    "light": "Turned, shifted and zoomed in plane (half of the patches), noise (half)",
    "full": "nnU-Net's default changes; with the others as near to them as their settings allow",
}


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['machine']}; one thread per loader. {result['volumes']} voxels, patches of "
        f"{result['patch']}; medians of {result['rounds']} rounds in turn (lowest to highest). "
        "Memory: peak beyond the imports; files in the page cache. " + result["note"],
    ]
    for changes, by_loader in result["drawing"].items():
        ours = by_loader[OURS]
        header = ("loader", "patches/s", "ct_attn is faster by", "memory, MiB", "ct_attn takes")
        lines += ["", SAID[changes] + ":", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for name, row in by_loader.items():
            spread = f"{row['lowest_ratio']:.1f} to {row['highest_ratio']:.1f}"
            lines.append(
                f"| {name} | {row['patches_per_s']:.1f} | {row['times_as_slow']:.1f} ({spread}) "
                f"| {row['peak_mib']:.0f} | {ours['peak_mib'] / row['peak_mib']:.3f} of it |"
            )
    lines += ["", "Preparing all volumes once:", "", "| loader | s | peak memory, MiB |", "|---|---|---|"]
    for name, row in result["preparing"].items():
        lines.append(f"| {name} | {row['seconds']:.0f} | {row['peak_mib']:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
