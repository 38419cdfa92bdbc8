"""The trunk that holds the organs: skin, fat, wall, diaphragm and lung bases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ct_attn.datasets.phantom.fields import Axes, Float32, LatticeField, function_field, noise_field
from ct_attn.datasets.phantom.painting import Coat, Layer, Samples
from ct_attn.datasets.phantom.patient import Habitus, Patient
from ct_attn.datasets.phantom.pose import REACH_MM
from ct_attn.datasets.phantom.shapes import Ellipsoid, Point, tube

#: Name of the field that is negative inside the abdominal cavity, below the diaphragm.
ABDOMEN = "abdomen"
CAVITY = "cavity"
LUNG = "lung"
SKIN = "skin"

_LATTICE_STEP_MM = 7.0
_SKIN_MM = 1.6

#: Random fields that paints use: lattice step in mm, standard deviation.
_TEXTURES = {"texture": (4.5, 1.0), "crumbs": (3.5, 1.0), "pyramids": (6.0, 0.55)}

Body = tuple[Float32, Float32, Float32]


def trunk_fields(patient: Patient) -> dict[str, LatticeField]:
    """The named fields of a patient: signed distances of the trunk's spaces, and tissue texture."""
    rng = patient.stream("trunk")
    breath_mm = float(rng.uniform(-14, 16))
    habitus = patient.habitus
    rules: dict[str, Callable[[Body], Float32]] = {
        SKIN: lambda body: _skin(habitus, body),
        CAVITY: lambda body: cavity_distance(habitus, body),
        LUNG: lambda body: _lung(habitus, body, breath_mm),
        ABDOMEN: lambda body: _abdomen(habitus, body, breath_mm),
    }

    def placed(rule: Callable[[Body], Float32]) -> Callable[[Axes], Float32]:
        return lambda axes: rule(patient.pose.body(axes))

    fields = {
        name: function_field(placed(rule), -REACH_MM, REACH_MM, step_mm=_LATTICE_STEP_MM)
        for name, rule in rules.items()
    }
    return fields | {
        name: noise_field(patient.stream(name), -REACH_MM, REACH_MM, step_mm=step_mm, sd=sd)
        for name, (step_mm, sd) in _TEXTURES.items()
    }


def trunk_layers(patient: Patient) -> list[Layer]:
    """Skin to lung bases, from outside in."""
    habitus = patient.habitus
    muscle = patient.textured("muscle", 5)
    fat = patient.textured("fat", 6)
    return [
        Layer(
            name="skin",
            within=SKIN,
            coats=(Coat(paint=patient.numbers["skin"]), Coat(paint=fat, reach_mm=-_SKIN_MM)),
        ),
        Layer(
            name="wall",
            within=CAVITY,
            coats=(Coat(paint=_striped_muscle(patient), reach_mm=habitus.wall_mm), Coat(paint=fat)),
        ),
        *_back_muscles(patient),
        Layer(
            name="lung",
            within=LUNG,
            coats=(Coat(paint=muscle, reach_mm=2.2), Coat(paint=patient.textured("lung", 35))),
        ),
        *_heart(patient),
    ]


def spine_y_mm(z_mm: Float32 | float) -> Float32:
    """Where the centre of the vertebral bodies lies: the lumbar curve."""
    return np.asarray(-0.0008 * (z_mm + 45.0) ** 2, dtype=np.float32)


def cavity_point(habitus: Habitus, angle: float, outward_mm: float) -> tuple[float, float]:
    """Body x, y ``outward_mm`` outside the cavity, ``angle`` radians from the back towards the right."""
    direction = np.array([np.sin(angle), -np.cos(angle)])
    half = np.array([habitus.cavity_half_width_mm, habitus.cavity_half_depth_mm])
    power = habitus.roundness
    radius = float((np.abs(direction / half) ** power).sum() ** (-1 / power)) + outward_mm
    return float(direction[0] * radius), float(direction[1] * radius + habitus.cavity_centre_y_mm)


def cavity_distance(habitus: Habitus, body: Body) -> Float32:
    """Signed distance to the inner surface of the trunk's wall, spine left out, in mm."""
    x, y, z = body
    oval = _oval_distance(
        x,
        y - habitus.cavity_centre_y_mm,
        habitus.cavity_half_width_mm,
        habitus.cavity_half_depth_mm,
        habitus.roundness,
    )
    column = _oval_distance(x, y - spine_y_mm(z) + 20, 34.0, 32.0, 2.0)
    return np.asarray(np.maximum(oval, -column), dtype=np.float32)


def _skin(habitus: Habitus, body: Body) -> Float32:
    x, y, z = body
    front = habitus.cavity_centre_y_mm + habitus.cavity_half_depth_mm + habitus.wall_mm + habitus.front_fat_mm
    back = habitus.cavity_centre_y_mm - habitus.cavity_half_depth_mm - 36 - 0.6 * habitus.flank_fat_mm
    waist = 1 + 0.03 * np.clip((z + 20) / 100, -1.5, 1.5) ** 2
    half_width = habitus.cavity_half_width_mm + habitus.wall_mm + habitus.flank_fat_mm
    return _oval_distance(
        np.asarray(x / waist, dtype=np.float32),
        y - (front + back) / 2,
        half_width,
        (front - back) / 2,
        habitus.roundness,
    )


def _diaphragm_z_mm(habitus: Habitus, body: Body, breath_mm: float) -> Float32:
    """Height of the diaphragm over each point: two domes that fall to the flanks and the back."""
    x, y, _ = body
    u = x / habitus.cavity_half_width_mm
    v = (y - habitus.cavity_centre_y_mm) / habitus.cavity_half_depth_mm
    radius = np.sqrt(u * u + v * v)
    dome = 104 + 7 * np.tanh(x / 40) + 6 * np.clip(np.abs(x) / 60, 0, 1)
    falls = 72 * np.clip(radius, 0, 1.2) ** 5
    rises = 46 * np.clip(v, 0, 1) * radius**2
    return np.asarray(dome - falls + rises + breath_mm, dtype=np.float32)


def _lung(habitus: Habitus, body: Body, breath_mm: float) -> Float32:
    above = 0.6 * (_diaphragm_z_mm(habitus, body, breath_mm) - body[2])
    inner = cavity_distance(habitus, body) + 1.0
    middle = -_oval_distance(body[0] + 6, body[1] - 20, 22.0, 38.0, 2.0)
    return np.asarray(np.maximum(np.maximum(inner, above), middle), dtype=np.float32)


def _abdomen(habitus: Habitus, body: Body, breath_mm: float) -> Float32:
    below = 0.6 * (body[2] - _diaphragm_z_mm(habitus, body, breath_mm)) + 2.0
    inner = cavity_distance(habitus, body) + 1.0
    return np.asarray(np.maximum(inner, below), dtype=np.float32)


def _oval_distance(x: Float32, y: Float32, a: float, b: float, power: float) -> Float32:
    """Radial distance in mm to the superellipse with half-axes ``a`` and ``b``."""
    relative = (np.abs(x / a) ** power + np.abs(y / b) ** power) ** (1 / power)
    relative = np.maximum(relative, 0.05)
    return np.asarray((1 - 1 / relative) * np.hypot(x, y), dtype=np.float32)


def _striped_muscle(patient: Patient) -> Callable[[Samples], Float32]:
    """Muscle in sheets: thin fat planes run along the wall, as between the obliques."""
    muscle, fat = patient.numbers["muscle"], patient.numbers["fat"]
    period_mm = patient.habitus.wall_mm / 2.6

    def paint(samples: Samples) -> Float32:
        depth = samples.field(CAVITY)
        depth += samples.texture
        plane = np.clip(np.cos(depth * np.float32(2 * np.pi / period_mm)) - 0.45, 0, 0.5)
        return np.asarray(muscle + (fat - muscle) * plane, dtype=np.float32)

    return paint


def _back_muscles(patient: Patient) -> list[Layer]:
    rng = patient.stream("back muscles")
    size = float(rng.uniform(0.85, 1.12))
    coats = (Coat(paint=patient.textured("muscle", 8)),)
    layers = []
    for side, name in ((-1, "left"), (1, "right")):
        groups = {
            "erector": ((36, -52), (25 * size, (1.35, 0.85, 1.0)), (-170, 170)),
            "quadratus": ((64, -36), (11 * size, (1.5, 0.9, 1.0)), (-170, 35)),
        }
        for muscle, ((x, y), (radius, flatten), (bottom, top)) in groups.items():
            path = [(side * x, y + float(spine_y_mm(z)), z) for z in np.linspace(bottom, top, 5)]
            solids = tube(path, radius, flatten=flatten, step_mm=25)
            layers.append(patient.layer(f"{name} {muscle}", coats, solids, wobble=[(22, 1.5)]))
        psoas: list[Point] = [
            (side * 26, -4, 25),
            (side * 36, -2, -40),
            (side * 48, 4, -100),
            (side * 56, 12, -175),
        ]
        solids = tube(psoas, np.array([6, 15, 21, 23]) * size, step_mm=20)
        layers.append(patient.layer(f"{name} psoas", coats, solids, wobble=[(22, 1.5)]))
        crus: list[Point] = [
            (side * 13, 14, -45),
            (side * 19, 14, 5),
            (side * 23, 12, 55),
            (side * 27, 10, 100),
        ]
        solids = tube(crus, np.array([3, 5, 6, 4]) * size, flatten=(0.8, 2.2, 1), step_mm=18)
        layers.append(patient.layer(f"{name} crus", coats, solids, wobble=[(14, 0.9)]))
    return layers


def _heart(patient: Patient) -> list[Layer]:
    rng = patient.stream("heart")
    centre = patient.jitter(rng, (-25, 58, 138), 5)
    heart = Ellipsoid(centre_mm=centre, radii_mm=(62, 46, 36))
    coats = (
        Coat(paint=patient.numbers["fat"], reach_mm=5),
        Coat(paint=patient.numbers["muscle"]),
        Coat(paint=patient.numbers["heart"], reach_mm=-9),
    )
    return [patient.layer("heart", coats, [heart], wobble=[(30, 2.5)], within=CAVITY, inset_mm=3)]
