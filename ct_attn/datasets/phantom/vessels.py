"""The large vessels of the abdomen and the small ones that cross its fat."""

from __future__ import annotations

import numpy as np

from ct_attn.datasets.phantom.painting import Coat, Layer
from ct_attn.datasets.phantom.pancreas import PancreasAxis, confluence, splenic_vein_path
from ct_attn.datasets.phantom.patient import Patient
from ct_attn.datasets.phantom.shapes import Point, Solid, as_point, tube
from ct_attn.datasets.phantom.torso import ABDOMEN, spine_y_mm


def vessel_layers(patient: Patient, axis: PancreasAxis) -> list[Layer]:
    """Vena cava, portal system, aorta with its branches, renal vessels."""
    return [
        _vena_cava(patient),
        _portal_system(patient, axis),
        _aorta(patient, axis),
    ]


def _vena_cava(patient: Patient) -> Layer:
    rng = patient.stream("vena cava")
    path = [(22, _before_spine(z, 9), float(z)) for z in (-170, -110, -50, 0, 50)]
    path += [(26, 8, 100), (22, 16, 135)]
    radius = float(rng.uniform(8, 11.5))
    solids = tube(path, radius, flatten=(1.25, 0.85, 1), step_mm=18)
    for side, start in ((-1, (-52, -3, 0)), (1, (50, -5, -10))):
        solids += tube([start, (side * 20, 12, -3), (20, 24, 0)], 4.5, step_mm=14)
    coats = _lumen(patient, "vena_cava", fat_mm=1.0)
    return patient.layer("vena cava", coats, solids, wobble=[(20, 1.0)])


def _aorta(patient: Patient, axis: PancreasAxis) -> Layer:
    rng = patient.stream("aorta")
    radius = float(rng.uniform(7.5, 11.5))
    path: list[Point] = [(-18, -4, 150), (-16, 6, 105)]
    path += [(-9, _before_spine(z, radius), float(z)) for z in (60, 10, -40, -95)]
    solids = tube(
        path, [radius * 1.15, radius * 1.1, radius, radius, radius * 0.9, radius * 0.85], step_mm=18
    )
    x, y, z = confluence(axis)
    root = _before_spine(18, radius) + radius
    sma: list[Point] = [
        (-9, root, 20),
        (-9, min(root + 12, y - 7), 4),
        (x - 14, y - 1, z - 35),
        (x - 12, y + 2, z - 85),
    ]
    solids += tube(sma, [3.8, 3.8, 3.5, 2.5], step_mm=10)
    solids += tube([(-9, root, 34), (-7, root + 12, 36)], 3.5, step_mm=12)
    for side in (-1, 1):
        iliac: list[Point] = [
            (-9, _before_spine(-95, 8), -92),
            (side * 18 - 4, 18, -125),
            (side * 38, 14, -175),
        ]
        solids += tube(iliac, 5.5, step_mm=18)
        solids += tube([(-9, root - radius, 2), (side * 48, -4, 0 if side < 0 else -8)], 3.0, step_mm=20)
    return patient.layer("aorta", _lumen(patient, "aorta", fat_mm=1.5), solids, wobble=[(20, 0.7)])


def _portal_system(patient: Patient, axis: PancreasAxis) -> Layer:
    rng = patient.stream("portal system")
    x, y, z = confluence(axis)
    radius = float(rng.uniform(5.5, 7.5))
    solids = tube([(x, y, z), (x + 14, y - 6, z + 20), (44, 34, 44)], radius, step_mm=10)
    mesenteric: list[Point] = [(x, y, z), (x + 2, y - 1, z - 35), (x + 3, y + 4, z - 85)]
    solids += tube(mesenteric, [radius, radius * 0.9, radius * 0.6], step_mm=12)
    solids += tube(splenic_vein_path(axis), float(rng.uniform(3.2, 4.6)), step_mm=9)
    return patient.layer(
        "portal system", _lumen(patient, "portal_vein", fat_mm=0.3), solids, wobble=[(15, 0.6)]
    )


def small_vessel_layers(patient: Patient, axis: PancreasAxis) -> list[Layer]:
    """Thin vessels that fan out from the mesenteric root, and stray ones: what makes fat look busy."""
    rng = patient.stream("small vessels")
    x, y, z = confluence(axis)
    solids: list[Solid] = []
    for _ in range(26):
        start = (x - 5, y + 2, z - float(rng.uniform(20, 85)))
        angle, reach = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(40, 95))
        end = (
            x + reach * np.cos(angle),
            y + float(rng.normal(18, 14)),
            start[2] - 12 + 0.6 * reach * np.sin(angle),
        )
        way = patient.jitter(rng, (0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1]) + 4, start[2] - 8), 7)
        solids += tube([start, way, end], [2.2, 1.6, 1.0], step_mm=22)
    for _ in range(22):
        start = as_point(rng.uniform((-95, 10, -40), (60, 88, 90)))
        way = patient.jitter(rng, start, 16)
        solids += tube([start, way, patient.jitter(rng, way, 16)], [2.6, 2.0, 1.2], step_mm=12)
    coats = [Coat(paint=patient.numbers["vena_cava"])]
    return [patient.layer("small vessels", coats, solids, within=ABDOMEN, inset_mm=6)]


def _lumen(patient: Patient, tissue: str, *, fat_mm: float) -> tuple[Coat, Coat]:
    return (
        Coat(paint=patient.textured("fat", 6), reach_mm=fat_mm),
        Coat(paint=patient.textured(tissue, 4)),
    )


def _before_spine(z_mm: float, radius_mm: float) -> float:
    return float(spine_y_mm(z_mm)) + 19.5 + radius_mm
