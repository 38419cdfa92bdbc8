"""The solid organs beside the pancreas: liver with gallbladder, spleen, kidneys."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ct_attn.datasets.phantom.fields import Float32
from ct_attn.datasets.phantom.painting import Coat, Layer, Paint, Samples
from ct_attn.datasets.phantom.patient import Patient
from ct_attn.datasets.phantom.shapes import Ellipsoid, Point, Solid, as_point, rotation, tube
from ct_attn.datasets.phantom.torso import ABDOMEN
from ct_attn.labels import DISK_SCHEME

_CODES = DISK_SCHEME.codes
#: Sign of x on each side.
_KIDNEY_SIDES = {"left_kidney": -1, "right_kidney": 1}


def liver_layers(patient: Patient) -> list[Layer]:
    """Liver under the right dome, with its veins, and the gallbladder below it."""
    rng = patient.stream("liver")
    size = float(rng.uniform(0.9, 1.08))
    left = float(rng.uniform(0.75, 1.25))
    lobes: list[Solid] = [
        _lump(patient, rng, (82, 22, 52), np.array([66, 84, 66]) * size, 7),
        _lump(patient, rng, (92, 12, 12), np.array([40, 62, 58]) * size, 7),
        _lump(patient, rng, (32, 62, 68), np.array([62, 44, 44]) * size, 6),
        _lump(patient, rng, (-20, 74, 72), np.array([52 * left, 28, 30]) * size, 6),
    ]
    hollow: list[Solid] = [
        Ellipsoid(centre_mm=patient.jitter(rng, (22, 24, 12), 4), radii_mm=(36, 28, 30)),
        Ellipsoid(centre_mm=patient.jitter(rng, (72, -22, -6), 4), radii_mm=(42, 34, 52)),
    ]
    liver = patient.layer(
        "liver",
        [Coat(paint=patient.textured("liver", 5))],
        lobes,
        carved=hollow,
        wobble=[(55, 4.0), (22, 1.2)],
        within=ABDOMEN,
        inset_mm=0.5,
    )
    return [liver, _liver_veins(patient), _gallbladder(patient)]


def _liver_veins(patient: Patient) -> Layer:
    """Hepatic veins that run down from the vena cava, and portal branches."""
    rng = patient.stream("liver veins")
    solids: list[Solid] = []
    for end in ((110, 10, 60), (75, 60, 60), (15, 75, 70), (105, -15, 45)):
        way = patient.jitter(rng, (0.45 * end[0] + 14, 0.5 * end[1] + 10, 92), 4)
        solids += tube([(24, 10, 104), way, patient.jitter(rng, end, 9)], [5.0, 4.0, 1.5], step_mm=14)
    for end in ((100, 25, 40), (92, -8, 38), (85, 50, 36), (0, 72, 66)):
        way = patient.jitter(rng, (0.5 * end[0] + 25, 0.5 * end[1] + 16, 48), 4)
        solids += tube([(44, 34, 44), way, patient.jitter(rng, end, 9)], [6.0, 4.5, 1.5], step_mm=14)
    coats = [Coat(paint=0.75 * patient.numbers["portal_vein"] + 0.25 * patient.numbers["liver"])]
    return patient.layer("liver veins", coats, solids, wobble=[(14, 0.8)], within=ABDOMEN, inset_mm=8)


def _gallbladder(patient: Patient) -> Layer:
    rng = patient.stream("gallbladder")
    width = float(rng.uniform(9, 18))
    fundus = patient.jitter(rng, (66, 78, -8), 6)
    path = [fundus, (58, 62, 8), (48, 46, 24)]
    coats = [
        Coat(paint=patient.numbers["bowel_wall"]),
        Coat(paint=patient.numbers["bile"], reach_mm=-1.5),
    ]
    solids = tube(path, [width, width * 0.85, 4], step_mm=12)
    return patient.layer("gallbladder", coats, solids, wobble=[(18, 1.0)], within=ABDOMEN, inset_mm=2)


def spleen_layers(patient: Patient) -> list[Layer]:
    """A lens against the left wall under the diaphragm, hollow towards stomach and kidney."""
    rng = patient.stream("spleen")
    reach = patient.habitus.cavity_half_width_mm - 128
    centre = patient.jitter(rng, (-98 - reach, 2, 52), 6)
    turn = rotation(*rng.normal((20, 6, -18), 8))
    radii = np.array([45, 57, 66]) * rng.uniform(0.8, 1.15, 3)
    x, y, z = centre
    hollow = Ellipsoid(
        centre_mm=patient.jitter(rng, (x + 44, y + 26, z - 4), 4), radii_mm=(33, 42, 60), rotation=turn
    )
    code = _CODES["spleen"]
    spleen = patient.layer(
        "spleen",
        [
            Coat(paint=patient.textured("fat", 6), reach_mm=2.5),
            Coat(paint=_spleen_paint(patient), label=code),
        ],
        [Ellipsoid(centre_mm=centre, radii_mm=as_point(radii), rotation=turn)],
        carved=[hollow, _behind_left_kidney(patient)],
        wobble=[(45, 4.0), (18, 1.3)],
        within=ABDOMEN,
        inset_mm=1.5,
    )
    return [spleen]


def _behind_left_kidney(patient: Patient) -> Ellipsoid:
    """The kidney's place, behind it and inwards of it: the spleen stays beside."""
    kidney = _kidney_body(patient, "left_kidney")
    x, y, z = kidney.centre_mm
    radii = np.add(kidney.radii_mm, (20, 16, 20))
    return Ellipsoid(centre_mm=(x + 18, y - 12, z), radii_mm=as_point(radii), rotation=kidney.rotation)


def _spleen_paint(patient: Patient) -> Paint:
    return patient.textured("spleen", 12 if patient.numbers.phase == "arterial" else 5)


def adrenal_layers(patient: Patient) -> list[Layer]:
    """Two thin limbs above each kidney, as bright as bowel wall."""
    rng = patient.stream("adrenals")
    limbs: list[Solid] = []
    for apex, tips in (
        ((-32, 20, 42), ((-44, 4, 36), (-30, 2, 34))),
        ((33, 8, 40), ((42, -10, 36), (30, -12, 34))),
    ):
        start = patient.jitter(rng, apex, 3)
        for tip in tips:
            limbs += tube([start, patient.jitter(rng, tip, 2.5)], [3.6, 2.0], flatten=(1, 1, 2.2), step_mm=12)
    return [
        patient.layer("adrenals", [Coat(paint=patient.textured("bowel_wall", 5))], limbs, wobble=[(9, 0.8)])
    ]


def perirenal_fat_layers(patient: Patient) -> list[Layer]:
    """The fat round both kidneys; whatever is painted later may press into it."""
    fat = Coat(paint=patient.textured("fat", 7), reach_mm=patient.habitus.perirenal_fat_mm)
    return [
        patient.layer(f"{name} fat", [fat], [_kidney_body(patient, name)], within=ABDOMEN)
        for name in _KIDNEY_SIDES
    ]


def kidney_layers(patient: Patient) -> list[Layer]:
    """Both kidneys: cortex, medulla, and the sinus with fat and pelvis (which is not labelled)."""
    return [layer for name in _KIDNEY_SIDES for layer in _kidney(patient, name)]


def _kidney_body(patient: Patient, name: str) -> Ellipsoid:
    """A bean's long axis: tilted along the psoas, hilum turned towards the front."""
    rng = patient.stream(name)
    side = _KIDNEY_SIDES[name]
    x, y, z = patient.jitter(rng, (side * 71, -8, 4 if side < 0 else -10), 5)
    z += float(rng.normal(0, 7))
    # rows of the rotation are the body's axes: tilt them by turning the opposite way
    turn = rotation(
        float(rng.normal(-12, 5)), side * float(rng.normal(-12, 4)), side * float(rng.normal(35, 10))
    )
    radii = np.array([25.0, 29.0, 55.0]) * rng.uniform(0.9, 1.1, 3)
    return Ellipsoid(centre_mm=(x, y, z), radii_mm=as_point(radii), rotation=turn)


def _towards_hilum(body: Ellipsoid, side: int, shift: float, radii: tuple[float, float, float]) -> Ellipsoid:
    """A smaller ellipsoid moved ``shift`` half-widths inwards, ``radii`` relative to the kidney's."""
    inward = -side * np.array(body.rotation[0])
    centre = np.array(body.centre_mm) + shift * body.radii_mm[0] * inward
    return Ellipsoid(
        centre_mm=as_point(centre),
        radii_mm=as_point(np.array(body.radii_mm) * radii),
        rotation=body.rotation,
    )


def _kidney(patient: Patient, name: str) -> list[Layer]:
    rng = patient.stream(f"{name} inside")
    body, side = _kidney_body(patient, name), _KIDNEY_SIDES[name]
    width = float(rng.uniform(0.7, 1.3))
    sinus = _towards_hilum(body, side, 0.68, (0.66, 0.36, 0.42))
    pelvis = _towards_hilum(body, side, 0.75, (0.50 * width, 0.16 * width, 0.2 * width))
    fat = patient.textured("fat", 7)
    coats = [
        Coat(paint=fat, reach_mm=min(3.0, patient.habitus.perirenal_fat_mm)),
        Coat(paint=patient.textured("renal_cortex", 6), label=_CODES[name]),
        Coat(paint=_pyramids(patient), reach_mm=-6.5, label=_CODES[name]),
    ]
    urine = [Coat(paint=patient.numbers["urine"])]
    return [
        patient.layer(name, coats, [body], wobble=[(28, 2.0), (11, 0.6)], within=ABDOMEN, inset_mm=2.0),
        patient.layer(f"{name} sinus", [Coat(paint=fat)], [sinus], wobble=[(12, 1.8)]),
        patient.layer(f"{name} pelvis", urine, [pelvis], wobble=[(9, 1.0)]),
    ]


def _pyramids(patient: Patient) -> Paint:
    """Medulla in pyramids with columns of cortex between them."""
    cortex, medulla = patient.numbers["renal_cortex"], patient.numbers["renal_medulla"]

    def paint(samples: Samples) -> Float32:
        share = np.clip(0.75 + samples.field("pyramids"), 0, 1)
        return np.asarray(cortex + (medulla - cortex) * share, dtype=np.float32)

    return paint


def _lump(patient: Patient, rng: np.random.Generator, centre: Point, radii: ArrayLike, sd_mm: float) -> Solid:
    return Ellipsoid(centre_mm=patient.jitter(rng, centre, sd_mm), radii_mm=as_point(radii))
