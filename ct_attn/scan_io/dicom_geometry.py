"""Where the slices of a series lie together, and what keeps them from being a volume.

highdicom judges whether slices form a regular stack; here its verdict is put into
words, exact duplicates are dropped, and the LPS of DICOM becomes RAS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom.spatial import create_affine_matrix_from_attributes, get_volume_positions
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.scan_io.dicom_headers import EXPORT_AGAIN, Slice
from ct_attn.scan_io.dicom_pixels import read_hu
from ct_attn.scan_io.limits import checked_grid
from ct_attn.scan_io.options import OnNote, ReadingOptions
from ct_attn.volume import LPS_TO_RAS, Grid

#: A slice may lie this far from its place in the regular stack. highdicom alone
#: accepts tilts up to 2.5 degrees, which move the last of 300 slices by a centimetre.
PLACE_TOLERANCE_MM = 0.1

_SAME_GEOMETRY = 1e-4  # of direction cosines and of pixel spacings in mm: 0.05 mm over 512 pixels
_SAME_PLACE_MM = 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices in order along their normal.

    ``places_mm`` [N] are their distances along it from the first slice; ``drift_mm`` [N, 2]
    is how far each first pixel lies beside the first slice's normal, along growing column
    and growing row.
    """

    slices: tuple[Slice, ...]
    places_mm: NDArray[np.float64]
    drift_mm: NDArray[np.float64]

    @property
    def steps_mm(self) -> NDArray[np.float64]:
        return np.diff(self.places_mm)

    @property
    def is_tilted(self) -> bool:
        return bool(np.abs(self.drift_mm).max() > PLACE_TOLERANCE_MM)

    @property
    def is_uneven(self) -> bool:
        """Whether a slice lies off the even stack from the first to the last."""
        if len(self.slices) < 3:
            return False
        even_mm = np.linspace(0, self.places_mm[-1], len(self.slices))
        return bool(np.abs(self.places_mm - even_mm).max() > PLACE_TOLERANCE_MM) or bool(
            np.ptp(self.steps_mm) > 2 * PLACE_TOLERANCE_MM
        )


def require_alike(slices: Sequence[Slice], folder: Path) -> None:
    """Raise :class:`UserError` unless all slices share size, spacing, orientation and frame of reference."""
    first = slices[0]
    differs: dict[str, Callable[[Slice], bool]] = {
        "image size": lambda other: other.shape != first.shape,
        "pixel spacing": lambda other: not _close(other.pixel_spacing_mm, first.pixel_spacing_mm),
        "orientation": lambda other: not _close(other.orientation, first.orientation),
        "frame of reference": lambda other: other.frame_of_reference != first.frame_of_reference,
        "kind": lambda other: other.is_localiser != first.is_localiser,
    }
    localisers = sum(one.is_localiser for one in slices)
    among = f", {localisers} of them a localiser by its image type" if localisers else ""
    for what, other_than_first in differs.items():
        count = sum(map(other_than_first, slices))
        if count:
            raise UserError(
                folder,
                expected=f"slices that share one {what}",
                found=f"{count} of {len(slices)} unlike the first by name{among}",
                remedy="keep the slices of one stack"
                + (": move the localiser away" if localisers else " (a localiser may be among them)"),
            )


def without_duplicates(slices: Sequence[Slice], folder: Path, on_note: OnNote) -> list[Slice]:
    """``slices`` less those that repeat another one pixel by pixel.

    Raises :class:`UserError` when two at one place show different things.
    """
    kept: dict[tuple[float, ...], Slice] = {}
    unlike, dropped = 0, 0
    for one in slices:
        place = tuple(np.round(one.position_mm / _SAME_PLACE_MM).tolist())
        other = kept.setdefault(place, one)
        if other is one:
            continue
        if np.array_equal(read_hu(one), read_hu(other)):
            dropped += 1
        else:
            unlike += 1
    if unlike:
        raise UserError(
            folder,
            expected="one slice at each place",
            found=f"{unlike} slices at the place of another, with other pixels",
            remedy="give each phase or reconstruction its own folder",
        )
    if dropped:
        on_note(f"{dropped} slices repeat another one pixel by pixel and were dropped.")
    return list(kept.values())


def arrange(slices: Sequence[Slice]) -> Stack:
    """``slices`` in order, with their distances along the normal and beside it."""
    across, down = slices[0].orientation[:3], slices[0].orientation[3:]
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda one: float(one.position_mm @ normal))
    offsets = np.stack([one.position_mm for one in ordered]) - ordered[0].position_mm
    return Stack(
        slices=tuple(ordered),
        places_mm=offsets @ normal,
        drift_mm=np.stack([offsets @ across, offsets @ down], axis=1),
    )


def regular_spacing_mm(stack: Stack, folder: Path, options: ReadingOptions) -> float | None:
    """The step of a regular stack, or None where ``options`` allow to correct an irregular one.

    Raises :class:`UserError` for one that is irregular in a way they don't allow.
    """
    slices = stack.slices
    if len(slices) == 1:
        return slices[0].thickness_mm
    spacing_mm, places = get_volume_positions(
        [one.position_mm.tolist() for one in slices],
        slices[0].orientation.tolist(),
        atol=PLACE_TOLERANCE_MM,
        index_convention=("R", "D"),
    )
    if spacing_mm is not None and places is not None and not stack.is_tilted and not stack.is_uneven:
        return float(spacing_mm)
    needed = {"--fix-spacing": stack.is_uneven, "--fix-tilt": stack.is_tilted}
    allowed = {"--fix-spacing": options.fix_spacing, "--fix-tilt": options.fix_tilt}
    missing = [option for option, yes in needed.items() if yes and not allowed[option]]
    if missing or not any(needed.values()) or stack.steps_mm.min() < _SAME_PLACE_MM:
        raise _irregular(stack, folder, missing)
    return None


def grid_of(first: Slice, count: int, spacing_mm: float, folder: Path) -> Grid:
    """The RAS grid of ``count`` slices from ``first`` on along its normal."""
    try:
        if spacing_mm <= 0:
            raise ValueError("neither neighbours nor a thickness of the only slice")
        affine_lps = create_affine_matrix_from_attributes(
            image_position=first.position_mm.tolist(),
            image_orientation=first.orientation.tolist(),
            pixel_spacing=first.pixel_spacing_mm.tolist(),
            spacing_between_slices=spacing_mm,
            index_convention=("R", "D"),
        )
    except ValueError as error:
        expected = "positive spacings and image axes at right angles"
        raise UserError(folder, expected=expected, found=str(error), remedy=EXPORT_AGAIN) from error
    shape = (first.shape[1], first.shape[0], count)
    return checked_grid(shape, LPS_TO_RAS @ affine_lps, folder, remedy=EXPORT_AGAIN)


def _close(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    return bool(np.allclose(first, second, rtol=0, atol=_SAME_GEOMETRY))


def _irregular(stack: Stack, folder: Path, missing: Sequence[str]) -> UserError:
    remedy = "complete or clean the series; a scan with holes would put organs in the wrong place"
    if missing:
        remedy += f", or resample it with {' '.join(missing)}"
    return UserError(
        folder,
        expected=f"{len(stack.slices)} slices evenly stacked along their normal",
        found=_describe(stack),
        remedy=remedy,
    )


def _describe(stack: Stack) -> str:
    steps_mm = stack.steps_mm
    usual_mm = float(np.median(steps_mm))
    if steps_mm.min() < _SAME_PLACE_MM:
        return f"{int((steps_mm < _SAME_PLACE_MM).sum())} slices in the plane of another"
    drifts = " and drift sideways (a tilted gantry?)" if stack.is_tilted else ""
    if steps_mm.max() > 1.5 * usual_mm:
        gaps = int((steps_mm > 1.5 * usual_mm).sum())
        found = f"a gap of {steps_mm.max():.3g} mm where slices are {usual_mm:.3g} mm apart"
        return found + (f", one of {gaps} gaps" if gaps > 1 else "") + drifts
    if stack.is_uneven:
        return f"steps from {steps_mm.min():.3g} to {steps_mm.max():.3g} mm{drifts}"
    return f"slices that{drifts.removeprefix(' and')}" if drifts else "an irregular stack"
