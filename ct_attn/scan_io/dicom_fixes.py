"""Irregular stacks made regular, when the user asks for it.

A slice tilted by the gantry is moved within its plane until its first pixel lies on the
first slice's normal; slices at uneven steps are interpolated linearly between their
neighbours. Both as dcm2niix does for its ``_Tilt_`` and ``_Eq_`` files.
"""

from __future__ import annotations

from dataclasses import replace
from math import floor

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift

from ct_attn.scan_io.dicom_geometry import Stack
from ct_attn.scan_io.dicom_headers import Slice
from ct_attn.scan_io.options import OnNote

#: Of what lies outside a slice that was moved.
AIR_HU = -1024.0

_ALIKE_STEPS = 1.25  # steps up to this times the smallest are one step with rounded positions


def even_step_mm(stack: Stack) -> float:
    """The smallest step of the stack, averaged over those like it, which positions may round."""
    steps_mm = stack.steps_mm
    return float(steps_mm[steps_mm <= _ALIKE_STEPS * steps_mm.min()].mean())


def even_count(stack: Stack) -> int:
    """How many slices at even steps there are from the first place to the last."""
    return (
        floor(stack.places_mm[-1] / even_step_mm(stack) + 1e-3) + 1 if stack.is_uneven else len(stack.slices)
    )


def even_places_mm(stack: Stack) -> NDArray[np.float64]:
    """Their places, [N']."""
    count = even_count(stack)
    step_mm = even_step_mm(stack) if stack.is_uneven else stack.places_mm[-1] / (count - 1)
    return np.asarray(np.arange(count) * step_mm, dtype=np.float64)


def upright_frame(stack: Stack) -> tuple[Slice, NDArray[np.float64]]:
    """A first slice that all slices fit into once moved, and their moves [N, 2] in its rows and columns."""
    first = stack.slices[0]
    drift = stack.drift_mm if stack.is_tilted else np.zeros_like(stack.drift_mm)
    pixels = drift[:, ::-1] / first.pixel_spacing_mm  # drift is along columns, then rows
    least, most = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0))
    rows, columns = (np.array(first.shape) + (most - least)).astype(int).tolist()
    corner_mm = least * first.pixel_spacing_mm
    across, down = first.orientation[:3], first.orientation[3:]
    position_mm = first.position_mm + corner_mm[0] * down + corner_mm[1] * across
    return replace(first, shape=(rows, columns), position_mm=position_mm), pixels - least


def move_upright(
    hu: NDArray[np.float64], shape: tuple[int, int], move: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``hu`` [row, column] moved by ``move`` pixels into an image of ``shape``, bilinearly, air around it."""
    if shape == hu.shape and not move.any():
        return hu
    wide = np.full(shape, AIR_HU)
    wide[: hu.shape[0], : hu.shape[1]] = hu
    return np.asarray(shift(wide, move, order=1, mode="constant", cval=AIR_HU))


def say_what_was_fixed(stack: Stack, places_mm: NDArray[np.float64], on_note: OnNote) -> None:
    if stack.is_tilted:
        drift_mm = float(np.linalg.norm(stack.drift_mm, axis=1).max())
        on_note(
            f"Its slices drift by up to {drift_mm:.3g} mm (a tilted gantry); "
            "they were moved upright, as --fix-tilt says."
        )
    if stack.is_uneven:
        on_note(
            f"Its {len(stack.slices)} slices lie {stack.steps_mm.min():.3g} to {stack.steps_mm.max():.3g} mm "
            f"apart; they were resampled linearly to {len(places_mm)} slices every {places_mm[1]:.3g} mm, "
            "as --fix-spacing says."
        )
