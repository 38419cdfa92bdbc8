"""Where the patient is: what lies outside is background, and no network needs to look."""

from __future__ import annotations

from math import ceil, prod

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn.volume import Volume, bounding_box

#: Between air (-1000, lung -850) and fat (-100).
_TISSUE_HU = -400.0

#: The body is found on voxels of about this size.
_GRID_MM = 4.0

#: Thinner things (the table's shell, tubes, clothes) are no body.
_THIN_MM = 12.0

#: Smaller things are no body.
_LEAST_ML = 200.0

#: Added on all sides.
_MARGIN_MM = 8.0


def find_body(working: Volume) -> NDArray[np.bool_]:
    """Where the patient may be, bool [I, J, K]; everywhere if nothing looks like one.

    Tissue without what is thin or small, its holes (lungs, bowel gas) filled slice by
    slice, and a margin of 8 mm. The axes of ``working`` run along R, A and S.
    """
    steps = [max(1, round(_GRID_MM / mm)) for mm in working.grid.spacing_mm]
    coarse = working.hu[:: steps[0], :: steps[1], :: steps[2]]
    coarse_mm = [mm * step for mm, step in zip(working.grid.spacing_mm, steps, strict=True)]
    body = _large(_thick(coarse > _TISSUE_HU, coarse_mm), coarse_mm)
    if not body.any():
        return np.ones(working.grid.shape, dtype=bool)
    body = _grown(_filled(body), coarse_mm, _MARGIN_MM)
    for axis, step in enumerate(steps):
        body = np.repeat(body, step, axis=axis)
    i, j, k = working.grid.shape
    return body[:i, :j, :k]


def body_box(body: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box around ``body``, which is not empty."""
    box = bounding_box(body)
    assert box is not None
    return box


def _grown(body: NDArray[np.bool_], spacing_mm: list[float], by_mm: float) -> NDArray[np.bool_]:
    """``body`` and all within ``by_mm`` of it along the axes."""
    for axis, mm in enumerate(spacing_mm):
        body = ndimage.maximum_filter1d(body.view(np.uint8), 2 * ceil(by_mm / mm) + 1, axis=axis).view(bool)
    return body


def _thick(tissue: NDArray[np.bool_], spacing_mm: list[float]) -> NDArray[np.bool_]:
    """``tissue`` without what is thinner than :data:`_THIN_MM` in plane; the scan's border is not thin."""
    opened = tissue.view(np.uint8)
    for change in (ndimage.minimum_filter1d, ndimage.maximum_filter1d):
        for axis, mm in enumerate(spacing_mm[:2]):
            opened = change(opened, 2 * (round(_THIN_MM / mm) // 2) + 1, axis=axis, mode="nearest")
    return np.asarray(opened.view(bool))


def _large(tissue: NDArray[np.bool_], spacing_mm: list[float]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(tissue)
    voxels = np.bincount(parts.ravel())
    # Of a scan that is small itself, a fifth is large.
    least = min(_LEAST_ML / (prod(spacing_mm) / 1000), tissue.size / 5)
    large = voxels >= least
    large[0] = False
    return np.asarray(large[parts])


def _filled(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``body`` with what it encloses in each slice."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[:, 1, 1] = in_plane[1, :, 1] = True
    outside, count = ndimage.label(~body, in_plane)
    open_air = np.zeros(count + 1, dtype=bool)
    for border in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        open_air[border.ravel()] = True
    open_air[0] = False
    return np.asarray(~open_air[outside])
