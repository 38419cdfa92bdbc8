"""Metrics of a 512 x 512 x 200 pair with four organs, ours beside others: time, memory, values.

    python3 -m venv peers && peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/metrics.py --peers peers/bin/python

Every tool runs in a process of its own, which has imported it and tried it on a small
part before. Each round runs every tool once, one after the other, so that all share what
else the machine does; ratios are medians over the rounds. Memory is the growth of the
process while it measures, beyond itself and the pair. The second table holds ways to find
the nearest surface element alone. Tables and values go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from metrics_tools import ORGANS, TOOLS, WAYS
from scipy import ndimage

from ct_attn.datasets.phantom.case import draw_case
from ct_attn.datasets.phantom.config import PhantomConfig
from ct_attn.metrics.areas import WHOLE, neighbour_codes
from ct_attn.metrics.surface import bounding_box

RESULTS = Path(__file__).parent / "results"
SCAN = PhantomConfig(
    in_plane_spacing_mm=(0.75, 0.75),
    slice_spacing_mm=(1.25, 1.25),
    field_of_view_mm=(384.0, 384.0),
    coverage_mm=(250.0, 250.0),
    body_scale=(1.0, 1.0),
    noise_hu=(0.0, 0.0),
    orientations=("LPS",),
    oblique_probability=0.0,
    padding_probability=0.0,
)
#: The prediction is the truth bent by random shifts: their size, and how far apart they are drawn.
BEND_MM, BEND_EVERY_MM = 3.0, 25.0
#: Two hard cases for the nearest element: a box much larger than the organ; no element nearby.
SPECK, SPHERES = "pancreas and a false speck far away", "spheres 12 mm apart"
OURS = next(iter(TOOLS))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", default=sys.executable, help="The Python that has the other tools.")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shape = write_pair(folder)
        measured = run_all(list(TOOLS), folder, options.peers, options.rounds)
        ways = run_all(list(WAYS), folder, options.peers, options.rounds)
    result = {
        "machine": describe(),
        "pair": f"{' x '.join(map(str, shape))} voxels, {len(ORGANS)} organs",
        "rounds": options.rounds,
        "tools": measured,
        "ways": ways,
    }
    (RESULTS / "metrics.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    (RESULTS / "metrics.md").write_text(text, encoding="utf-8")
    print(text)


def write_pair(folder: Path) -> tuple[int, ...]:
    """Draw truth and prediction, and the surfaces of their organs by the area convention."""
    mask = draw_case(1, SCAN).mask
    spacing_mm = np.array(mask.grid.spacing_mm)
    truth = np.ascontiguousarray(mask.labels)
    predicted = bend(truth, spacing_mm, np.random.default_rng(0))
    np.save(folder / "truth.npy", truth)
    np.save(folder / "predicted.npy", predicted)
    np.save(folder / "spacing_mm.npy", spacing_mm)
    np.savez(folder / "surfaces.npz", spacing_mm=spacing_mm, **surfaces(truth, predicted, spacing_mm))
    return truth.shape


def surfaces(truth: np.ndarray, predicted: np.ndarray, spacing_mm: np.ndarray) -> dict[str, np.ndarray]:
    """Surfaces by the area convention, bool, each two in the box of both: the organs and two hard cases."""
    pairs = {organ: (truth == code, predicted == code) for code, organ in enumerate(ORGANS, start=1)}
    speck = predicted == 1
    speck[20:30, 20:30, 5:10] = True
    pairs[SPECK] = (truth == 1, speck)
    centred = [(np.arange(n) - n / 2) * mm for n, mm in zip((140, 140, 90), spacing_mm, strict=True)]
    radius_mm = np.sqrt(sum(along**2 for along in np.meshgrid(*centred, indexing="ij", sparse=True)))
    pairs[SPHERES] = (radius_mm < 40, radius_mm < 28)
    found = {}
    for name, pair in pairs.items():
        box = bounding_box(pair[0] | pair[1])
        for side, mask in zip(("truth", "predicted"), pair, strict=True):
            codes = neighbour_codes(mask[box])
            found[f"{name} {side}"] = (codes != 0) & (codes != WHOLE)
    return found


def bend(labels: np.ndarray, spacing_mm: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """``labels`` [I, J, K] looked up at places shifted at random, linearly between coarse nodes."""
    nodes = [max(4, int(n * mm / BEND_EVERY_MM) + 2) for n, mm in zip(labels.shape, spacing_mm, strict=True)]
    shifts = [random.normal(0, BEND_MM / mm, nodes) for mm in spacing_mm]
    i, j = np.meshgrid(*map(np.arange, labels.shape[:2]), indexing="ij")
    bent = np.zeros_like(labels)
    for k in range(labels.shape[2]):
        places = (i, j, np.full_like(i, k))
        at = [
            place / (size - 1) * (count - 1)
            for place, size, count in zip(places, labels.shape, nodes, strict=True)
        ]
        source = [
            np.rint(place + ndimage.map_coordinates(shift, at, order=1)).astype(int).clip(0, size - 1)
            for place, shift, size in zip(places, shifts, labels.shape, strict=True)
        ]
        bent[:, :, k] = labels[tuple(source)]
    return bent


def run_all(names: list[str], folder: Path, peers: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Medians of seconds and of the ratio to the first tool, the largest memory, the values."""
    processes = {name: start(name, folder, peers) for name in names}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    try:
        for _ in range(rounds):
            for name, process in processes.items():
                runs[name].append(ask(process))
                print(f"{name}: {runs[name][-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    first = [run["seconds"] for run in runs[names[0]]]
    return {
        name: {
            "seconds": statistics.median(run["seconds"] for run in of_tool),
            "ratio": statistics.median(run["seconds"] / own for run, own in zip(of_tool, first, strict=True)),
            "cpu_seconds": statistics.median(run["cpu_seconds"] for run in of_tool),
            "mib": max(run["mib"] for run in of_tool),
            "values": median_values([run["values"] for run in of_tool]),
        }
        for name, of_tool in runs.items()
    }


def median_values(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of numbers that are the same in every round the number, of seconds the median."""
    return {
        row: {name: statistics.median(run[row][name] for run in runs) for name in runs[0][row]}
        for row in runs[0]
    }


def start(name: str, folder: Path, peers: str) -> subprocess.Popen[str]:
    python = sys.executable if "ct_attn" in name else peers
    script = str(Path(__file__).with_name("metrics_tools.py"))
    process = subprocess.Popen(
        [python, script, name, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"{name} does not start with {python}; see --peers")
    return process


def ask(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def table(result: dict[str, Any]) -> str:
    tools, ways = result["tools"], result["ways"]
    lines = [
        f"{result['machine']}; pair of {result['pair']}; medians of {result['rounds']} rounds.",
        "",
        "| tool | s | / ct_attn | processor s | memory, MiB |"
        + "".join(f" {organ} S2S, mm |" for organ in ORGANS),
        "|---" * (5 + len(ORGANS)) + "|",
    ]
    for name, row in tools.items():
        s2s = "".join(f" {row['values'][organ]['s2s_mm']:.4f} |" for organ in ORGANS)
        lines.append(
            f"| {name} | {row['seconds']:.2f} | {row['ratio']:.1f} | {row['cpu_seconds']:.2f} "
            f"| {row['mib']:.0f} |{s2s}"
        )
    lines += [
        "",
        *agreement(tools),
        "",
        "The nearest surface element alone, both directions:",
        "",
    ]
    lines += [
        f"| way | organs, s | {SPECK}, s | {SPHERES}, s | memory, MiB | largest distance, mm |",
        "|---" * 6 + "|",
    ]
    for name, row in ways.items():
        values = row["values"]
        organs = sum(values[organ]["seconds"] for organ in ORGANS)
        largest = max(one["max_mm"] for one in values.values())
        lines.append(
            f"| {name} | {organs:.3f} | {values[SPECK]['seconds']:.3f} | {values[SPHERES]['seconds']:.3f} "
            f"| {row['mib']:.0f} | {largest:.5f} |"
        )
    return "\n".join(lines) + "\n"


def agreement(tools: dict[str, Any]) -> list[str]:
    """How far our values are from those of the packages whose conventions they follow."""
    lines = []
    for ours, theirs, measures in (
        (OURS, "google surface-distance", ("dsc", "s2s_mm", "hd95_mm", "nsd_2mm")),
        ("ct_attn, voxel convention", "MONAI", ("dsc", "s2s_mm", "hd95_mm")),
        (OURS, "MONAI", ("nsd_2mm",)),
    ):
        one, other = tools[ours]["values"], tools[theirs]["values"]
        largest = max(abs(one[organ][name] - other[organ][name]) for organ in ORGANS for name in measures)
        lines.append(f"Largest difference of {ours} from {theirs} ({', '.join(measures)}): {largest:.1e}.  ")
    return lines


if __name__ == "__main__":
    main()
