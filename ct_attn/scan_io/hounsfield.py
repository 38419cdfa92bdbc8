"""Whether a scan's values are Hounsfield units, and what is done to those that are.

A CT cropped inside the body has no air, one of a limb may have no organ, noise differs:
so nothing is asked of the histogram but that it isn't one of the known mistakes. Each
rule needs hardly any spread, or hardly a negative value together with a second sign; a
crop of an abdomen has negative ones in fat and in noise.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.scan_io.options import OnNote, ReadingOptions
from ct_attn.scan_io.values import HuArray, StoredVolume
from ct_attn.volume import Volume

#: Air by definition is at -1000 HU; scanners write down to -1024 and padding below.
LEAST_HU = -1024

_SAMPLE = 2_000_000  # voxels that medians and shares are taken of
_STRAY = 1e-3  # of the voxels may be negative by resampling, which overshoots
_LESS_THAN_TISSUE = 10  # HU: the noise of any CT spreads wider
_STORED_TISSUE = (900, 1200)  # soft tissue in a scan kept with an offset of 1000 or 1024
_STORED_BETWEEN = (300, 800)  # nothing of a body but some lung there; bone in a scan of HU


def as_hounsfield(stored: StoredVolume, path: Path, options: ReadingOptions, on_note: OnNote) -> Volume:
    """The scan in HU of at least -1024, which :attr:`ReadingOptions.rescale` may make of others.

    Raises :class:`UserError`, with the likely cause, when the values are no HU.
    """
    hu, grid = stored.volume.hu, stored.volume.grid
    if options.rescale is not None:
        slope, intercept = options.rescale
        hu = _rescaled(hu, slope, intercept)
        on_note(f"Its values were multiplied by {slope:g} and {intercept:g} added, as --rescale says.")
    else:
        cause = likely_cause(hu) or ("numbers kept in 8 bits" if stored.eight_bit else "")
        if cause:
            raise UserError(
                path,
                expected="Hounsfield units",
                found=f"values from {hu.min():g} to {hu.max():g}: {cause}",
                remedy="if they can be turned into HU, say how with --rescale SLOPE INTERCEPT",
            )
    return Volume(hu=_without_padding(hu, on_note), grid=grid)


def likely_cause(hu: HuArray) -> str:
    """What ``hu`` probably are when they can't be HU, else an empty string.

    Padding (below -1024) has no say. A constant scan isn't judged.
    """
    sample = hu.T.reshape(-1)[:: ceil(hu.size / _SAMPLE) | 1]  # odd: no multiple of a row's length
    sample = sample[sample >= LEAST_HU]
    if sample.size == 0 or sample.min() == sample.max():
        return ""
    least, most = float(sample.min()), float(sample.max())
    whole = sample.dtype == np.int16 or bool((sample == np.rint(sample)).all())
    if most - least <= _LESS_THAN_TISSUE and not whole:
        return "scaled to 0-1" if least >= 0 and most <= 1 else "normalised"
    if _share(sample, LEAST_HU, 0) > _STRAY:
        return ""
    return _cause_of_no_negative(sample, most, whole=whole)


def _cause_of_no_negative(sample: NDArray[Any], most: float, *, whole: bool) -> str:
    low, high = _STORED_TISSUE
    tissue = _share(sample, low, high)
    if np.median(sample) >= low or (tissue >= 0.1 and tissue > _share(sample, *_STORED_BETWEEN)):
        return "an offset, as scanners store numbers (--rescale 1 -1024 is usual)"
    at_zero = float((sample == 0).mean())
    if at_zero < 0.1:
        return ""  # a crop without fat or air
    if whole and most <= 64:
        return "a label map"
    if whole and most <= 255:
        return "an 8-bit picture"
    if most <= 1:
        return "scaled to 0-1"
    return "nothing below 0, where CT has air and fat (cut off, or another kind of image)"


def _share(sample: NDArray[Any], low: float, high: float) -> float:
    return float(((sample >= low) & (sample < high)).mean())


def _rescaled(hu: HuArray, slope: float, intercept: float) -> HuArray:
    values = hu * np.float32(slope)
    values += np.float32(intercept)
    return np.asarray(values, dtype=np.float32)


def _without_padding(hu: HuArray, on_note: OnNote) -> HuArray:
    """``hu`` with what is below -1024 raised to it; changes the array."""
    count = sum(int((plane < LEAST_HU).sum()) for plane in hu.T)  # no array of a whole scan
    if count:
        on_note(
            f"{count:,} voxels below {LEAST_HU} HU, down to {hu.min():g} "
            f"(padding outside the field of view, or overshoot of a resampling), were set to {LEAST_HU}."
        )
        np.maximum(hu, np.asarray(LEAST_HU, dtype=hu.dtype), out=hu)
    return hu
