"""Spine and lower ribs."""

from __future__ import annotations

import numpy as np

from ct_attn.datasets.phantom.painting import Coat, Layer
from ct_attn.datasets.phantom.patient import Patient
from ct_attn.datasets.phantom.shapes import Drum, Ellipsoid, Solid, tube
from ct_attn.datasets.phantom.torso import cavity_point, spine_y_mm

#: Heights of the vertebral bodies' centres in body mm, T8 to S1 from the top; L1 is at 0.
VERTEBRAE_Z_MM = (148, 121, 93, 64, 33, 0, -35, -71, -108, -146, -182)
#: Rib: height of its head and how far round it reaches, in radians from the back.
_RIBS = ((172, 2.5), (148, 2.4), (121, 2.3), (93, 2.1), (64, 1.5), (35, 0.95))


def skeleton_layers(patient: Patient) -> list[Layer]:
    """Discs, vertebrae with arch, processes and canal, and ribs."""
    return [*_spine(patient), *_ribs(patient)]


def _bone(patient: Patient, shell_mm: float) -> tuple[Coat, Coat]:
    return (
        Coat(paint=patient.numbers["cortical_bone"]),
        Coat(paint=patient.textured("trabecular_bone", 22), reach_mm=-shell_mm),
    )


def _spine(patient: Patient) -> list[Layer]:
    size = float(patient.stream("spine").uniform(0.92, 1.08))
    discs = [(0.0, float(spine_y_mm(z)), float(z)) for z in np.linspace(-190, 175, 10)]
    canal = [(x, y - 27 * size, z) for x, y, z in discs]
    bodies: list[Solid] = []
    arches: list[Solid] = []
    for z in VERTEBRAE_Z_MM:
        bodies.append(_vertebral_body(float(z), size))
        arches.extend(_arch(float(z), size))
    disc_solids = tube(discs, 19 * size, flatten=(1.2, 0.88, 1), step_mm=25)
    return [
        patient.layer("discs", [Coat(paint=patient.textured("disc", 5))], disc_solids),
        patient.layer("arches", _bone(patient, 2.2), arches, wobble=[(9, 0.8)]),
        patient.layer("vertebrae", _bone(patient, 1.6), bodies, wobble=[(12, 0.7)]),
        patient.layer(
            "canal",
            [Coat(paint=patient.numbers["fat"], reach_mm=1.5), Coat(paint=patient.numbers["spinal_canal"])],
            tube(canal, 8.0 * size, flatten=(1.25, 0.95, 1), step_mm=20),
        ),
    ]


def _vertebral_body(z: float, size: float) -> Solid:
    width = 1.0 - 0.0009 * z
    radii = (23.5 * size * width, 17 * size * min(width, 1.05), 13.6)
    return Drum(centre_mm=(0, float(spine_y_mm(z)), z), radii_mm=radii)


def _arch(z: float, size: float) -> list[Solid]:
    """Pedicles, laminae, transverse and spinous processes behind one vertebral body."""
    y = float(spine_y_mm(z)) - 27 * size
    solids: list[Solid] = [
        Ellipsoid(centre_mm=(0, y - 24 * size, z - 13), radii_mm=(3.6, 16 * size, 9)),
    ]
    for side in (-1, 1):
        pedicle = [(side * 13 * size, y + 14 * size, z + 5), (side * 15 * size, y, z + 3)]
        lamina = [(side * 15 * size, y, z + 2), (0, y - 13 * size, z - 8)]
        process = [(side * 14 * size, y, z + 2), (side * 38 * size, y - 7 * size, z + 3)]
        joint = [(side * 16 * size, y - 4 * size, z + 4), (side * 15 * size, y - 7 * size, z - 18)]
        solids += tube(pedicle, 5.0, step_mm=30) + tube(lamina, 4.0, step_mm=30)
        solids += tube(process, [5.0, 3.5], step_mm=30) + tube(joint, 6.0, step_mm=30)
    return solids


def _ribs(patient: Patient) -> list[Layer]:
    rng = patient.stream("ribs")
    drop = float(rng.uniform(52, 72))
    ribs: list[Solid] = []
    for side in (-1, 1):
        for height, reach in _RIBS:
            angles = np.linspace(0.3, reach + float(rng.normal(0, 0.06)), 9)
            path = [
                (*cavity_point(patient.habitus, side * angle, 6.0), height - drop * angle / 2.2)
                for angle in angles.tolist()
            ]
            ribs += tube(path, 4.6, flatten=(1, 1, 1.45), step_mm=14)
    return [patient.layer("ribs", _bone(patient, 1.8), ribs, wobble=[(10, 0.5)])]
