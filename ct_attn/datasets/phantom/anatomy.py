"""A whole patient as an ordered list of layers, with organ volumes set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ct_attn.datasets.phantom.bowel import colon_layers, duodenum_layers, small_bowel_layers, stomach_layers
from ct_attn.datasets.phantom.ct_numbers import CtNumbers
from ct_attn.datasets.phantom.fields import Axes, Float32, Float64, LatticeField
from ct_attn.datasets.phantom.organs import (
    adrenal_layers,
    kidney_layers,
    liver_layers,
    perirenal_fat_layers,
    spleen_layers,
)
from ct_attn.datasets.phantom.painting import Canvas, Layer, Samples
from ct_attn.datasets.phantom.pancreas import draw_axis, pancreas_layers
from ct_attn.datasets.phantom.patient import Patient, draw_patient
from ct_attn.datasets.phantom.pose import REACH_MM, Pose
from ct_attn.datasets.phantom.skeleton import skeleton_layers
from ct_attn.datasets.phantom.torso import SKIN, trunk_fields, trunk_layers
from ct_attn.datasets.phantom.vessels import small_vessel_layers, vessel_layers
from ct_attn.labels import DISK_SCHEME

#: Volumes an organ is brought into, in ml. A scan's voxels may miss these by a few percent,
#: which keeps them in 40-150 (pancreas), 100-400 (spleen) and 100-230 (each kidney).
TARGET_ML = {
    "pancreas": (46.0, 138.0),
    "spleen": (112.0, 370.0),
    "left_kidney": (112.0, 212.0),
    "right_kidney": (112.0, 212.0),
}

#: How many times its drawn volume an organ of an average adult is given.
_VARIATION = {
    "pancreas": (0.85, 1.6),
    "spleen": (0.8, 1.5),
    "left_kidney": (0.9, 1.25),
    "right_kidney": (0.9, 1.25),
}

_MEASURING_STEP_MM = 2.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anatomy:
    """A patient drawn in continuous scanner mm: paint it on any sample points."""

    pose: Pose
    numbers: CtNumbers
    fields: dict[str, LatticeField]
    layers: tuple[Layer, ...]

    def paint(self, axes_mm: Axes, background_hu: Float32) -> tuple[Float32, NDArray[np.uint8]]:
        """HU and labels [nz, ny, nx] at the combinations of positions, over ``background_hu`` [ny, nx]."""
        samples = self.samples(axes_mm)
        hu = np.empty(samples.x.shape, dtype=np.float32)
        hu[:] = background_hu
        canvas = Canvas(samples=samples, hu=hu, labels=np.zeros(hu.shape, dtype=np.uint8))
        for layer in self.layers:
            canvas.paint(layer)
        return canvas.hu, canvas.labels

    def samples(self, axes_mm: Axes) -> Samples:
        return Samples(axes_mm, self.pose.body(axes_mm), self.fields)

    def skin_box_mm(self) -> tuple[Float64, Float64]:
        """Corners of the box round the body, as far as it is drawn."""
        axes = _regular_axes(-REACH_MM, REACH_MM, 10.0)
        inside = np.argwhere(self.fields[SKIN].sample(axes) < 0)[:, ::-1]
        corners = [
            np.array([positions[index] for positions, index in zip(axes, ends, strict=True)])
            for ends in (inside.min(axis=0), inside.max(axis=0))
        ]
        return corners[0] - 10.0, corners[1] + 10.0

    def labelled_box_mm(self) -> tuple[Float64, Float64]:
        """Corners of the box round all labelled organs, a few mm wide of them."""
        boxes = np.concatenate([layer.boxes_mm for layer in self.layers if _code(layer)])
        return boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)


def draw_anatomy(seed: np.random.SeedSequence, *, scale: float) -> Anatomy:
    """A random patient ``scale`` times the size of an average adult."""
    patient = draw_patient(seed, scale=scale)
    anatomy = Anatomy(
        pose=patient.pose,
        numbers=patient.numbers,
        fields=trunk_fields(patient),
        layers=tuple(_layers(patient)),
    )
    return _with_volumes(anatomy, patient)


def _layers(patient: Patient) -> list[Layer]:
    """In painting order: what comes later hides what it overlaps."""
    axis = draw_axis(patient)
    return [
        *trunk_layers(patient),
        *skeleton_layers(patient),
        *small_vessel_layers(patient, axis),
        *small_bowel_layers(patient),
        *perirenal_fat_layers(patient),
        *adrenal_layers(patient),
        *colon_layers(patient),
        *liver_layers(patient),
        *stomach_layers(patient, axis),
        *duodenum_layers(patient, axis),
        *spleen_layers(patient),
        *kidney_layers(patient),
        *pancreas_layers(patient, axis),
        *vessel_layers(patient, axis),
    ]


def _code(layer: Layer) -> int:
    return max(coat.label for coat in layer.coats)


def _with_volumes(anatomy: Anatomy, patient: Patient) -> Anatomy:
    """The anatomy with every labelled organ grown or shrunk to a volume in its range.

    From the last painted to the first, so that what later layers hide is known.
    """
    low, high = anatomy.labelled_box_mm()
    samples = anatomy.samples(_regular_axes(low, high, _MEASURING_STEP_MM))
    hidden = np.zeros(samples.x.shape, dtype=bool)
    names = {code: name for name, code in DISK_SCHEME.codes.items()}
    layers = list(anatomy.layers)
    first = next(index for index, layer in enumerate(layers) if _code(layer))
    for index in reversed(range(first, len(layers))):
        if name := names.get(_code(layers[index])):
            factor = _size_factor(patient, name)
            layers[index] = _brought_into(layers[index], samples, hidden, TARGET_ML[name], factor)
        _hide(layers[index], samples, hidden)
    return Anatomy(pose=anatomy.pose, numbers=anatomy.numbers, fields=anatomy.fields, layers=tuple(layers))


def _size_factor(patient: Patient, organ: str) -> float:
    """How many times its drawn volume an organ gets."""
    # organs differ less between small and large people than the trunk's volume does
    return float(patient.stream(f"{organ} volume").uniform(*_VARIATION[organ]) * patient.pose.scale**-1.5)


def _brought_into(
    layer: Layer,
    samples: Samples,
    hidden: NDArray[np.bool_],
    range_ml: tuple[float, float],
    factor: float,
) -> Layer:
    """``layer`` grown so that its visible part has ``factor`` times its volume, inside ``range_ml``."""
    window = layer.window(samples.axes_mm)
    if window is None:
        return layer
    near = samples.window(window)
    visible = ~hidden[window]
    limit = layer.limit(near)
    if limit is not None:
        visible &= limit < 0
    distance = np.sort(layer.surface(near)[visible])
    point_ml = _MEASURING_STEP_MM**3 / 1000
    wanted_ml = _reflected(float(np.searchsorted(distance, 0.0)) * point_ml * factor, range_ml)
    count = min(int(wanted_ml / point_ml), len(distance) - 1)
    return layer.grown(float(distance[count]))


def _reflected(value: float, limits: tuple[float, float]) -> float:
    """``value`` brought inside; a third of the excess is turned back, so that few end up on a limit."""
    inside = float(np.clip(value, *limits))
    return float(np.clip(inside + (inside - value) / 3, *limits))


def _hide(layer: Layer, samples: Samples, hidden: NDArray[np.bool_]) -> None:
    window = layer.window(samples.axes_mm)
    if window is not None:
        reach = max(coat.reach_mm for coat in layer.coats)
        hidden[window] |= layer.distance(samples.window(window)) < reach


def _regular_axes(low_mm: Float64, high_mm: Float64, step_mm: float) -> Axes:
    x, y, z = (np.arange(low, high, step_mm) for low, high in zip(low_mm, high_mm, strict=True))
    return x, y, z
