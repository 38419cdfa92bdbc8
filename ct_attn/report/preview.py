"""A picture of a mask to look at before anything is done with it: three planes through each organ."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.report.figures import case_picture
from ct_attn.report.legend import PALETTE
from ct_attn.report.png import palette_png
from ct_attn.volume import Mask, Volume


def preview_picture(volume: Volume, mask: Mask, *, scheme: LabelScheme) -> bytes:
    """A PNG: all organs in three planes, and below, each that was found in planes of its own.

    Each row is cropped to what it shows. Raises ``ValueError`` when the grids differ.
    """
    rows = [_pixels(case_picture(volume, mask, scheme=scheme))]
    present = [structure for structure in scheme.structures if (mask.labels == structure.code).any()]
    if len(scheme.structures) > 1:
        rows += [_organ_row(volume, mask, scheme, structure.code) for structure in present]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 8), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return palette_png(np.concatenate(padded), PALETTE)


def _organ_row(volume: Volume, mask: Mask, scheme: LabelScheme, code: int) -> NDArray[np.uint8]:
    """One organ alone; the others keep their places in ``scheme``, and so it keeps its colour."""
    alone = Mask(labels=np.where(mask.labels == code, mask.labels, np.uint8(0)), grid=mask.grid)
    return _pixels(case_picture(volume, alone, scheme=scheme))


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(np.rint(imread(BytesIO(png), format="png")[..., :3] * 255), dtype=np.uint8)
