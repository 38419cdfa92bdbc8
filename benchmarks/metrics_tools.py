"""The tools that ``benchmarks/metrics.py`` compares, each in a process of its own.

    python benchmarks/metrics_tools.py TOOL FOLDER

imports the tool, tries it on a small part, and then measures once per line it reads.
Only numpy is needed besides the tool, so that peers live in an environment of theirs.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

ORGANS = ("pancreas", "spleen", "left_kidney", "right_kidney")  # codes 1 to 4
Values = dict[str, dict[str, float]]
Run = Callable[[np.ndarray, np.ndarray, tuple[float, float, float]], Values]


def ours(convention: str) -> Run:
    from ct_attn.labels import DISK_SCHEME
    from ct_attn.labels import ORGANS as KNOWN
    from ct_attn.metrics import ScoreOptions, SurfaceConvention, score_case
    from ct_attn.volume import Grid, Mask

    def run(truth: np.ndarray, predicted: np.ndarray, spacing_mm: tuple[float, float, float]) -> Values:
        grid = Grid(shape=truth.shape, affine=np.diag([*spacing_mm, 1.0]))
        scores = score_case(
            Mask(labels=truth, grid=grid),
            Mask(labels=predicted, grid=grid),
            case_id="pair",
            truth_scheme=DISK_SCHEME,
            predicted_scheme=DISK_SCHEME,
            labelled_organs=KNOWN,
            options=ScoreOptions(surface=SurfaceConvention(convention)),
        )
        names = {"dsc": "dsc", "s2s_mm": "s2s_mm", "hd95_mm": "hd95_mm", "nsd_2mm": "surface_dsc_2mm"}
        return {
            score.organ: {name: getattr(score, field) for name, field in names.items()} for score in scores
        }

    return run


def monai(subvoxels: bool) -> Run:
    """Dice, confusion matrix, symmetric surface distance, HD95 and NSD, as its metrics are called."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_confusion_matrix_metric,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
        get_confusion_matrix,
    )
    from monai.networks.utils import one_hot

    def run(truth: np.ndarray, predicted: np.ndarray, spacing_mm: tuple[float, float, float]) -> Values:
        y, y_pred = (
            one_hot(torch.from_numpy(labels)[None, None], num_classes=1 + len(ORGANS))
            for labels in (truth, predicted)
        )
        pair = {"y_pred": y_pred, "y": y, "include_background": False}
        dsc = compute_dice(**pair)
        confusion = get_confusion_matrix(**pair)
        for name in ("precision", "recall", "accuracy"):
            compute_confusion_matrix_metric(name, confusion)
        s2s_mm = compute_average_surface_distance(**pair, symmetric=True, spacing=spacing_mm)
        hd95_mm = compute_hausdorff_distance(**pair, percentile=95, spacing=spacing_mm)
        nsd = compute_surface_dice(
            **pair, class_thresholds=[2.0] * len(ORGANS), spacing=spacing_mm, use_subvoxels=subvoxels
        )
        return as_values(dsc=dsc[0], s2s_mm=s2s_mm[0], hd95_mm=hd95_mm[0], nsd_2mm=nsd[0])

    return run


def google() -> Run:
    import surface_distance

    def run(truth: np.ndarray, predicted: np.ndarray, spacing_mm: tuple[float, float, float]) -> Values:
        values = {}
        for code, organ in enumerate(ORGANS, start=1):
            pair = truth == code, predicted == code
            d = surface_distance.compute_surface_distances(*pair, spacing_mm)
            averages = surface_distance.compute_average_surface_distance(d)
            areas = d["surfel_areas_gt"].sum(), d["surfel_areas_pred"].sum()
            surface_distance.compute_robust_hausdorff(d, 100)
            nsd = [surface_distance.compute_surface_dice_at_tolerance(d, mm) for mm in (1, 2, 3)]
            values[organ] = {
                "dsc": surface_distance.compute_dice_coefficient(*pair),
                "s2s_mm": float(np.average(averages, weights=areas)),
                "hd95_mm": surface_distance.compute_robust_hausdorff(d, 95),
                "nsd_2mm": nsd[1],
            }
        return values

    return run


def simpleitk() -> Run:
    """Its overlap filter, and its notebooks' recipe for surface distances: maps over the whole scan."""
    import SimpleITK as sitk  # noqa: N813

    def run(truth: np.ndarray, predicted: np.ndarray, spacing_mm: tuple[float, float, float]) -> Values:
        images = [sitk.GetImageFromArray(labels.transpose(2, 1, 0)) for labels in (truth, predicted)]
        for image in images:
            image.SetSpacing(spacing_mm)
        values = {}
        for code, organ in enumerate(ORGANS, start=1):
            masks = [image == code for image in images]
            overlap = sitk.LabelOverlapMeasuresImageFilter()
            overlap.Execute(*masks)
            maps = [
                sitk.Abs(sitk.SignedMaurerDistanceMap(mask, squaredDistance=False, useImageSpacing=True))
                for mask in masks
            ]
            contours = [sitk.GetArrayFromImage(sitk.LabelContour(mask)) > 0 for mask in masks]
            there = sitk.GetArrayFromImage(maps[1])[contours[0]]
            back = sitk.GetArrayFromImage(maps[0])[contours[1]]
            both = np.concatenate([there, back])
            values[organ] = {
                "dsc": overlap.GetDiceCoefficient(),
                "s2s_mm": float(both.mean()),
                "hd95_mm": float(max(np.percentile(there, 95), np.percentile(back, 95))),
                "nsd_2mm": float((both <= 2).mean()),
            }
        return values

    return run


def scipy() -> Run:
    """Boundary voxels and distance transforms over the whole scan, the recipe of MedPy."""
    from scipy import ndimage

    def run(truth: np.ndarray, predicted: np.ndarray, spacing_mm: tuple[float, float, float]) -> Values:
        values = {}
        for code, organ in enumerate(ORGANS, start=1):
            one, other = truth == code, predicted == code
            borders = [mask ^ ndimage.binary_erosion(mask) for mask in (one, other)]
            there = ndimage.distance_transform_edt(~borders[1], sampling=spacing_mm)[borders[0]]
            back = ndimage.distance_transform_edt(~borders[0], sampling=spacing_mm)[borders[1]]
            both = np.concatenate([there, back])
            values[organ] = {
                "dsc": 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)),
                "s2s_mm": float(both.mean()),
                "hd95_mm": float(max(np.percentile(there, 95), np.percentile(back, 95))),
                "nsd_2mm": float((both <= 2).mean()),
            }
        return values

    return run


TOOLS: dict[str, Callable[[], Run]] = {
    "ct_attn": lambda: ours("area"),
    "ct_attn, voxel convention": lambda: ours("voxel"),
    "MONAI": lambda: monai(subvoxels=True),
    "google surface-distance": google,
    "SimpleITK": simpleitk,
    "scipy": scipy,
}


# --- ways to the nearest surface element alone: from cropped surfaces, bool [I, J, K], to distances

Way = Callable[[np.ndarray, np.ndarray, tuple[float, float, float]], np.ndarray]


def nearby_first() -> Way:
    from ct_attn.metrics.nearest import nearest_distances_mm

    return lambda points, others, spacing_mm: nearest_distances_mm(points, others, np.diag(spacing_mm))


def tree(workers: int) -> Way:
    from scipy.spatial import cKDTree

    def run(points: np.ndarray, others: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
        places = [np.argwhere(mask) * np.asarray(spacing_mm) for mask in (points, others)]
        built = cKDTree(places[1], balanced_tree=False, compact_nodes=False)
        return built.query(places[0], workers=workers)[0]

    return run


def scipy_transform() -> Way:
    from scipy import ndimage

    return lambda points, others, spacing_mm: ndimage.distance_transform_edt(~others, sampling=spacing_mm)[
        points
    ]


def edt_transform(threads: int) -> Way:
    import edt

    return lambda points, others, spacing_mm: edt.edt(~others, anisotropy=spacing_mm, parallel=threads)[
        points
    ]


WAYS: dict[str, Callable[[], Way]] = {
    "nearby first, then a tree (ct_attn)": nearby_first,
    "scipy cKDTree": lambda: tree(1),
    "scipy cKDTree, 2 threads": lambda: tree(2),
    "scipy distance transform": scipy_transform,
    "edt": lambda: edt_transform(1),
    "edt, 2 threads": lambda: edt_transform(2),
}


def as_values(**by_measure: object) -> Values:
    return {
        organ: {name: float(numbers[place]) for name, numbers in by_measure.items()}  # type: ignore[index] # by place of the organ
        for place, organ in enumerate(ORGANS)
    }


def distances_of_all(way: Way, folder: Path) -> Callable[[], Values]:
    """Both directions of every pair of surfaces, with seconds and, for a check, the largest distance."""
    stored = np.load(folder / "surfaces.npz")
    spacing_mm = tuple(stored["spacing_mm"].tolist())
    names = [key.removesuffix(" truth") for key in stored if key.endswith(" truth")]
    pairs = {name: (stored[f"{name} truth"], stored[f"{name} predicted"]) for name in names}

    def run() -> Values:
        values = {}
        for name, (truth, predicted) in pairs.items():
            start = time.perf_counter()
            there, back = way(truth, predicted, spacing_mm), way(predicted, truth, spacing_mm)
            seconds = time.perf_counter() - start
            values[name] = {"seconds": seconds, "max_mm": float(max(there.max(), back.max()))}
        return values

    return run


def scores_of_pair(tool: Run, folder: Path) -> Callable[[], Values]:
    truth, predicted = (np.load(folder / f"{name}.npy") for name in ("truth", "predicted"))
    spacing_mm = tuple(np.load(folder / "spacing_mm.npy").tolist())
    places = np.argwhere(truth)
    organ = places[len(places) // 2]
    part = tuple(slice(max(0, at - 20), at + 20) for at in organ)
    small = [np.pad(labels[part], 2) for labels in (truth, predicted)]
    small[0][:8, 0, 0] = small[1][:8, 0, 0] = np.tile(np.arange(1, 5), 2)  # all organs are there
    tool(small[0], small[1], spacing_mm)  # what is set up once is set up
    return lambda: tool(truth, predicted, spacing_mm)


def measure(run: Callable[[], Values]) -> dict[str, object]:
    """Seconds on the clock and of processors, how far memory grew (MiB), and the values."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = memory_kib("VmRSS")
    start, busy = time.perf_counter(), time.process_time()
    values = run()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - busy
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "mib": (memory_kib("VmHWM") - before) / 1024,
        "values": values,
    }


def memory_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    warnings.simplefilter("ignore")
    name, folder = sys.argv[1], Path(sys.argv[2])
    run = scores_of_pair(TOOLS[name](), folder) if name in TOOLS else distances_of_all(WAYS[name](), folder)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(run)), flush=True)


if __name__ == "__main__":
    main()
