"""Stomach, duodenum, small bowel and colon with what they hold."""

from __future__ import annotations

import numpy as np

from ct_attn.datasets.phantom.fields import Float32, Float64
from ct_attn.datasets.phantom.painting import Coat, Layer, Paint, Samples
from ct_attn.datasets.phantom.pancreas import PancreasAxis, duodenum_path
from ct_attn.datasets.phantom.patient import Patient
from ct_attn.datasets.phantom.shapes import Point, as_point, rotation, smooth_path, tube
from ct_attn.datasets.phantom.torso import ABDOMEN

_AIR_HU = -985.0

#: Sheets of small bowel: centre in body mm, and half its width and height.
_SHEETS: dict[str, tuple[Point, tuple[float, float]]] = {
    "deep": ((0, 42, -88), (90, 75)),
    "front": ((0, 70, -88), (90, 75)),
    "upper": ((-60, 46, 12), (35, 40)),
}


def stomach_layers(patient: Patient, axis: PancreasAxis) -> list[Layer]:
    """Stomach in front of the pancreas: food or fluid with air above it."""
    rng = patient.stream("stomach")
    fullness = float(rng.uniform(0.6, 1.15))
    x, y, z = as_point(axis.neck)
    deep = patient.habitus.cavity_centre_y_mm - 27
    path = [
        patient.jitter(rng, (-58, 10 + deep, 92), 6),
        patient.jitter(rng, (-67, 44 + deep, 72), 6),
        patient.jitter(rng, (-58, 76 + deep, 32), 6),
        patient.jitter(rng, (-25, 82 + deep, 2), 5),
        patient.jitter(rng, (x + 8, y + 26, z - 2), 4),
        (x + 22, y + 12, z + 14),
    ]
    radii = np.array([32, 33, 27, 22, 16, 9]) * np.array([fullness] * 4 + [1, 1])
    level = path[2][1] + float(rng.uniform(-18, 28))
    coats = _gut_coats(
        patient, rng, wall_mm=float(rng.uniform(2.5, 4.5)), contents=_gastric(patient, rng, level)
    )
    solids = tube(path, radii, step_mm=11)
    # the stomach lies on the pancreas and never round it
    bed = tube(axis.points_mm, axis.radii_mm + 4, flatten=(1.0, 1.0, 1.35), step_mm=12)
    stomach = patient.layer(
        "stomach", coats, solids, carved=bed, wobble=[(30, 2.5), (10, 0.9)], within=ABDOMEN, inset_mm=3
    )
    return [stomach]


def duodenum_layers(patient: Patient, axis: PancreasAxis) -> list[Layer]:
    """The C round the head of the pancreas, collapsed or filled."""
    rng = patient.stream("duodenum")
    points, radii = duodenum_path(patient, axis)
    coats = _gut_coats(patient, rng, wall_mm=float(rng.uniform(2.5, 6)), contents=_chyme(patient, rng))
    return [patient.layer("duodenum", coats, tube(points, radii, step_mm=9), wobble=[(16, 1.4), (7, 0.7)])]


def small_bowel_layers(patient: Patient) -> list[Layer]:
    """Loops in front of the spine and beside the pancreas, cut into lengths with their own contents."""
    layers = []
    for sheet, (centre, reach) in _SHEETS.items():
        rng = patient.stream(f"{sheet} small bowel")
        points = _loops(patient, rng, centre, reach)
        for part, start in enumerate(range(0, len(points) - 3, 7)):
            stretch = points[start : start + 8]
            radii = rng.uniform(9.5, 14.5, len(stretch))
            coats = _gut_coats(patient, rng, wall_mm=float(rng.uniform(2, 5)), contents=_chyme(patient, rng))
            solids = tube(stretch, radii, step_mm=11)
            name = f"{sheet} small bowel {part}"
            layers.append(patient.layer(name, coats, solids, wobble=[(14, 1.3)], within=ABDOMEN, inset_mm=5))
    return layers


def colon_layers(patient: Patient) -> list[Layer]:
    """Ascending, transverse and descending colon with haustra, stool and gas."""
    rng = patient.stream("colon")
    deep = patient.habitus.cavity_half_depth_mm - 80
    side = patient.habitus.cavity_half_width_mm - 132
    sag = float(rng.uniform(-10, 50))
    ways: dict[str, tuple[list[Point], float]] = {
        "ascending": (
            [(94 + side, 18, -165), (98 + side, 6, -105), (98 + side, 8, -55), (82 + side, 30, -34)],
            21,
        ),
        "transverse": (
            [
                (82 + side, 30, -34),
                (55, 78 + deep, -38),
                (0, 92 + deep, -38 - sag),
                (-55, 82 + deep, -24),
                (-92 - side, 42, 14),
                (-100 - side, 14, 32),
            ],
            17,
        ),
        "descending": (
            [(-100 - side, 14, 32), (-108 - side, -4, -10), (-106 - side, -2, -80), (-98 - side, 14, -165)],
            14,
        ),
    }
    return [_colon_part(patient, name, path, radius) for name, (path, radius) in ways.items()]


def _colon_part(patient: Patient, name: str, path: list[Point], radius_mm: float) -> Layer:
    rng = patient.stream(f"{name} colon")
    moved = [path[0], *(patient.jitter(rng, point, 5) for point in path[1:-1]), path[-1]]
    points, _ = smooth_path(moved, radius_mm, step_mm=9)
    haustra = 1 + 0.14 * np.sin(np.arange(len(points)) * 2 * np.pi / 3.3)
    radii = radius_mm * float(rng.uniform(0.75, 1.2)) * haustra
    level = float(np.mean(points[:, 1])) + float(rng.uniform(-12, 14))
    coats = _gut_coats(patient, rng, wall_mm=2.5, contents=_stool(rng, level))
    solids = tube(points, radii, step_mm=9)
    return patient.layer(f"{name} colon", coats, solids, wobble=[(16, 1.6)], within=ABDOMEN, inset_mm=4)


def _loops(patient: Patient, rng: np.random.Generator, centre: Point, reach: tuple[float, float]) -> Float64:
    """A winding path through an upright sheet, ``reach`` wide and high on each side, turned at random."""
    rows = []
    for row, height in enumerate(np.arange(-reach[1], reach[1] + 5, 27.0)):
        across = np.arange(-reach[0], reach[0] + 5, 23.0) * (1 if row % 2 else -1)
        rows.append(np.stack([across, np.zeros_like(across), np.full_like(across, height)], axis=1))
    points = np.concatenate(rows)
    points += np.clip(rng.standard_normal(points.shape), -2, 2) * (6, 9, 7)
    points = points @ rotation(0, float(rng.uniform(-60, 60)), 0).T
    return np.asarray(points + centre + np.array([0, patient.habitus.cavity_centre_y_mm - 27, 0]))


def _gut_coats(
    patient: Patient, rng: np.random.Generator, *, wall_mm: float, contents: Paint
) -> tuple[Coat, Coat, Coat]:
    """A thin sheet of fat (at times none), the wall and the contents."""
    return (
        Coat(paint=patient.textured("fat", 8), reach_mm=float(rng.uniform(-0.5, 2.0))),
        Coat(paint=patient.textured("bowel_wall", 6)),
        Coat(paint=contents, reach_mm=-wall_mm),
    )


def _gastric(patient: Patient, rng: np.random.Generator, level_mm: float) -> Paint:
    """Fluid or food with air above ``level_mm``."""
    base = patient.numbers["bowel_fluid"]
    food_hu = float(rng.choice((4.0, 22.0, 45.0)))

    def paint(samples: Samples) -> Float32:
        values = base + food_hu * samples.texture
        return _with_air(samples, values, level_mm)

    return paint


def _chyme(patient: Patient, rng: np.random.Generator) -> Paint:
    """What small bowel holds: mostly chyme close to soft tissue, at times fluid, contrast or gas."""
    kind = rng.choice(("chyme", "fluid", "wall", "contrast", "gas"), p=(0.42, 0.2, 0.22, 0.06, 0.1))
    means = {
        "chyme": patient.numbers["chyme"],
        "fluid": patient.numbers["bowel_fluid"],
        "wall": patient.numbers["bowel_wall"] - 6,
        "contrast": 210.0,
        "gas": -600.0,
    }
    spread = {"gas": 350.0, "contrast": 50.0}.get(str(kind), 9.0)
    mean = means[str(kind)]

    def paint(samples: Samples) -> Float32:
        return np.asarray(np.maximum(mean + spread * samples.texture, _AIR_HU), dtype=np.float32)

    return paint


def _stool(rng: np.random.Generator, level_mm: float) -> Paint:
    """Crumbly soft tissue and gas bubbles, with free gas above ``level_mm``."""
    mean, spread = float(rng.uniform(-60, 20)), float(rng.uniform(60, 190))

    def paint(samples: Samples) -> Float32:
        values = np.clip(mean + spread * samples.field("crumbs"), -800, 70)
        return _with_air(samples, values, level_mm)

    return paint


def _with_air(samples: Samples, values: Float32, level_mm: float) -> Float32:
    above = np.clip((samples.y - np.float32(level_mm)) / 1.5, 0, 1)
    return np.asarray(values + (np.float32(_AIR_HU) - values) * above, dtype=np.float32)
