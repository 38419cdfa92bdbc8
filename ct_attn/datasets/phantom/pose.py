"""How the patient lies in the scanner: size, tilt, shift and a smooth deformation.

Scanner coordinates are mm along the patient's right, front and head as the table
sees them. Body coordinates are mm in an average adult, with the origin in the
first lumbar vertebra and the same directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_attn.datasets.phantom.fields import Axes, Float32, Float64, LatticeField, function_field, noise_field
from ct_attn.datasets.phantom.shapes import rotation

#: The part of the scanner, on each side of its centre, where the patient may lie, in mm.
REACH_MM = np.array([300.0, 220.0, 240.0])

_TILT_SD_DEGREES = (3.0, 3.0, 3.5)
_DEFORMATION_SD_MM = 4.5
_DEFORMATION_STEP_MM = 62.0
_LATTICE_STEP_MM = 15.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pose:
    """The map from scanner to body coordinates, one field for each of x, y and z."""

    scale: float
    fields: tuple[LatticeField, LatticeField, LatticeField]

    def body(self, axes_mm: Axes) -> tuple[Float32, Float32, Float32]:
        """Body x, y, z [nz, ny, nx] at the combinations of scanner positions ``axes_mm``."""
        x, y, z = (field.sample(axes_mm) for field in self.fields)
        return x, y, z

    def scanner(self, body_mm: Float64) -> Float64:
        """Scanner positions [n, 3] of body points [n, 3], to a fraction of a mm."""
        places = body_mm * self.scale
        for _ in range(8):
            reached = np.stack([field.at(places) for field in self.fields], axis=1)
            places = places + self.scale * (body_mm - reached)
        return places


def draw_pose(rng: np.random.Generator, *, scale: float) -> Pose:
    """A random pose of a patient ``scale`` times the size of an average adult."""
    limits = np.array(_TILT_SD_DEGREES)
    turn = rotation(*np.clip(limits * rng.standard_normal(3), -2 * limits, 2 * limits)) / scale
    shift = rng.normal(0.0, (7.0, 6.0, 10.0))
    bends = [
        noise_field(rng, -REACH_MM, REACH_MM, step_mm=_DEFORMATION_STEP_MM, sd=_DEFORMATION_SD_MM)
        for _ in range(3)
    ]

    def coordinate(axis: int) -> LatticeField:
        def value(axes: Axes) -> Float32:
            x, y, z = (positions - shift[i] for i, positions in enumerate(axes))
            flat = turn[axis, 0] * x + turn[axis, 1] * y[:, None] + turn[axis, 2] * z[:, None, None]
            return np.asarray(flat + bends[axis].sample(axes), dtype=np.float32)

        return function_field(value, -REACH_MM, REACH_MM, step_mm=_LATTICE_STEP_MM)

    return Pose(scale=scale, fields=(coordinate(0), coordinate(1), coordinate(2)))
