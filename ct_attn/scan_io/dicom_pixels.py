"""The pixels of DICOM slices, as HU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from ct_attn.errors import UserError
from ct_attn.scan_io.dicom_headers import Slice, refusing_damage


def require_decoder(slices: Sequence[Slice], folder: Path) -> None:
    """Raise :class:`UserError` when no installed decoder reads what ``slices`` are packed with."""
    for syntax in {one.transfer_syntax for one in slices}:
        if not _can_decode(syntax):
            raise UserError(
                folder,
                expected="pixel data that an installed decoder reads",
                found=f"transfer syntax {syntax.name} ({syntax})",
                remedy="decompress the series (gdcmconv --raw) or convert it to NIfTI (dcm2niix)",
            )


def _can_decode(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def read_hu(one: Slice) -> NDArray[np.float64]:
    """The slice's HU [row, column]; raises :class:`UserError` when its pixels are damaged."""
    with refusing_damage(one.path):
        stored = pydicom.dcmread(one.path).pixel_array
        if stored.shape != one.shape:
            raise ValueError(f"an image of shape {stored.shape}")
        return np.asarray(stored * one.slope + one.intercept, dtype=np.float64)


def hu_blocks(slices: Sequence[Slice]) -> Iterator[NDArray[np.float64]]:
    """The HU of one slice after the other, each [row * column]."""
    for one in slices:
        yield read_hu(one).reshape(-1)
