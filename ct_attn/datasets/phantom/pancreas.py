"""The pancreas, from the loop of the duodenum to the hilum of the spleen, and what touches it.

Duodenum and splenic vein follow from the pancreas' axis, so that they stay in
contact with it however it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_attn.datasets.phantom.fields import Float32, Float64
from ct_attn.datasets.phantom.painting import Coat, Layer, Paint, Samples
from ct_attn.datasets.phantom.patient import Patient
from ct_attn.datasets.phantom.shapes import Point, as_point, smooth_path, tube
from ct_attn.labels import DISK_SCHEME

#: Body mm along the axis: low head, head, neck, body over the spine, body, tail, tip; and radii there.
_AXIS_MM = (
    (31, 36, -38),
    (33, 42, -12),
    (10, 57, 6),
    (-16, 59, 15),
    (-42, 46, 22),
    (-68, 22, 32),
    (-84, 4, 40),
)
_RADII_MM = (8.5, 12.5, 8.0, 8.5, 9.5, 9.0, 6.5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PancreasAxis:
    """``points_mm`` [7, 3] in body mm from the low head to the tip of the tail, ``radii_mm`` [7]."""

    points_mm: Float64
    radii_mm: Float64

    @property
    def head(self) -> Float64:
        return np.asarray(self.points_mm[1])

    @property
    def neck(self) -> Float64:
        return np.asarray(self.points_mm[2])


def draw_axis(patient: Patient) -> PancreasAxis:
    """A random axis: moved as a whole, tail up or down, every point a little for itself."""
    rng = patient.stream("pancreas axis")
    points = np.array(_AXIS_MM, dtype=np.float64)
    points += rng.normal(0, (3.5, 3, 7))
    rise = np.linspace(0, 1, len(points)) - 0.25
    points[:, 2] += rise * float(rng.normal(0, 11))
    points[:, 1] += rise * float(rng.normal(0, 4)) + 0.5 * (patient.habitus.cavity_centre_y_mm - 27)
    points += np.clip(rng.standard_normal(points.shape), -2, 2) * (3.5, 2.5, 4.0)
    # how far the tail reaches towards the hilum
    points[-1] = points[-2] + (points[-1] - points[-2]) * float(rng.uniform(0.4, 1.2))
    radii = np.array(_RADII_MM) * rng.uniform(0.85, 1.15, len(points))
    return PancreasAxis(points_mm=points, radii_mm=radii * float(rng.uniform(0.9, 1.15)))


def pancreas_layers(patient: Patient, axis: PancreasAxis) -> list[Layer]:
    """The lobulated gland in a thin, uneven sheet of fat that is missing where it touches its neighbours."""
    rng = patient.stream("pancreas")
    code = DISK_SCHEME.codes["pancreas"]
    lobulation_mm = float(rng.uniform(1.0, 2.3))
    x, y, z = as_point(axis.head)
    solids = tube(axis.points_mm, axis.radii_mm, flatten=(1.0, 1.0, 1.35), step_mm=7)
    uncinate: list[Point] = [(x - 2, y - 6, z - 14), (x - 16, y - 12, z - 20)]
    solids += tube(uncinate, [8.5, 5.0], step_mm=7)
    coats = [
        Coat(paint=patient.textured("fat", 8), reach_mm=float(rng.uniform(-0.5, 2.5))),
        Coat(paint=_lobules(patient, rng), label=code),
    ]
    return [patient.layer("pancreas", coats, solids, wobble=[(20, 1.6), (6.5, lobulation_mm)])]


def _lobules(patient: Patient, rng: np.random.Generator) -> Paint:
    """Gland with fat between its lobules: none in some patients, a lot in others."""
    gland, fat = patient.numbers["pancreas"], patient.numbers["fat"]
    texture_hu, fatty = float(rng.uniform(5, 10)), float(rng.uniform(0, 1)) ** 2

    def paint(samples: Samples) -> Float32:
        clefts = np.clip(samples.field("crumbs") - 1.0, 0, 0.7) * np.float32(fatty)
        return np.asarray(gland + texture_hu * samples.texture + (fat - gland) * clefts, dtype=np.float32)

    return paint


def duodenum_path(patient: Patient, axis: PancreasAxis) -> tuple[Float64, Float64]:
    """Points [9, 3] in body mm and radii [9] of the C round the head, from the bulb to the jejunum."""
    rng = patient.stream("duodenum path")
    x, y, z = as_point(axis.head)
    low = float(axis.points_mm[0, 2])
    points = np.array(
        [
            (x - 2, y + 18, z + 26),
            (x + 17, y + 6, z + 20),
            (x + 23, y - 6, z - 2),
            (x + 22, y - 9, low + 2),
            (x + 12, y - 12, low - 18),
            (x - 12, y - 8, low - 26),
            (x - 38, y - 2, low - 22),
            (x - 60, y - 2, low - 2),
            (x - 70, y + 8, low + 8),
        ]
    )
    points += np.clip(rng.standard_normal(points.shape), -2, 2) * 2.0
    return points, rng.uniform(10, 14.5, len(points))


def splenic_vein_path(axis: PancreasAxis) -> list[Point]:
    """From the confluence behind the neck along the back of the gland to the hilum."""
    points, radii = smooth_path(axis.points_mm[2:], axis.radii_mm[2:], step_mm=16)
    behind = points - np.stack([0.1 * radii, radii + 2.8, -0.25 * radii], axis=1)
    tip = axis.points_mm[-1] + (-10, -6, 4)
    return [as_point(point) for point in [*behind, tip]]


def confluence(axis: PancreasAxis) -> Point:
    """Where the splenic vein meets the superior mesenteric vein, behind the neck."""
    return as_point(axis.neck - (0, float(axis.radii_mm[2]) + 4.5, 0))
