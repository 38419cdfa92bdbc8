"""MetaImage files (``.mha``): a text header and the voxels after it.

Format: https://itk.org/Wiki/MetaIO/Documentation. ITK writes each axis' direction as a
row of TransformMatrix, in LPS. SimpleITK takes damaged packed voxels without a word
(docs/decisions/002-mha-nrrd.md), so they are read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.scan_io.limits import (
    checked_grid,
    one_volume,
    refusing_damage,
    require_allowed_size,
    require_file,
    require_real_numbers,
    require_stored_size,
    unpacked,
)
from ct_attn.scan_io.options import AS_IT_IS, OnNote, ReadingOptions, no_note
from ct_attn.scan_io.values import StoredVolume, read_hu, require_finite
from ct_attn.volume import LPS_TO_RAS, Shape3, Volume

SUFFIX = ".mha"

_MOST_HEADER_BYTES = 1 << 16
_LAST_KEY = "ElementDataFile"
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_MM_PER_UNIT = {"": 1.0, "?": 1.0, "mm": 1.0, "um": 1e-3, "cm": 10.0}
_EXPORT_AGAIN = "write the file again, or convert it to NIfTI"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """The header's fields by their key, and the byte after it."""

    fields: dict[str, str]
    end: int

    def text(self, *keys: str, default: str = "") -> str:
        """The value of the first of ``keys`` that is there: newer and older names of one field."""
        return next((self.fields[key] for key in keys if key in self.fields), default)

    def flag(self, *keys: str) -> bool:
        return self.text(*keys).lower() in {"true", "t", "1"}

    def numbers(self, *keys: str, count: int, default: str = "") -> NDArray[np.float64]:
        words = self.text(*keys, default=default).split()
        if len(words) != count:
            raise ValueError(f"{len(words)} of {count} numbers in {keys[0]}")
        return np.array([float(word) for word in words])


def read_stored(path: Path, options: ReadingOptions = AS_IT_IS, on_note: OnNote = no_note) -> StoredVolume:
    """The volume in ``path``, RAS, and what the file stores.

    Raises :class:`UserError` when the file is no whole MetaImage of one 3D volume of
    real numbers within the limits of ``options``.
    """
    require_file(path, "MetaImage")
    with refusing_damage(path, "MetaImage"), path.open("rb") as file:
        header = _read_header(file, path)
        shape = _shape(header, path, on_note)
        require_allowed_size(shape, options, path)
        dtype = _stored_type(header, path)
        packed = header.flag("CompressedData")
        require_stored_size(path, header.end + prod(shape) * dtype.itemsize, packed=packed)
        grid = checked_grid(shape, _affine(header, on_note), path, remedy=_EXPORT_AGAIN)
        file.seek(header.end)
        hu = read_hu(unpacked(file, "zlib" if packed else "raw"), shape, dtype)
    require_finite(hu, path)
    return StoredVolume(volume=Volume(hu=hu, grid=grid), eight_bit=dtype.itemsize == 1)


def _read_header(file: BinaryIO, path: Path) -> _Header:
    start = file.read(_MOST_HEADER_BYTES)
    fields: dict[str, str] = {}
    end = 0
    while _LAST_KEY not in fields:
        line, newline, _ = start[end:].partition(b"\n")
        key, equals, value = line.decode("latin-1").partition("=")
        if not (newline and equals):
            raise UserError(
                path, expected="a MetaImage file", found="something else", remedy="convert it to NIfTI"
            )
        fields[key.strip()] = value.strip()
        end += len(line) + 1
    if fields[_LAST_KEY] != "LOCAL":
        raise UserError(
            path, expected="a file that holds its voxels", found="another file's name", remedy=_EXPORT_AGAIN
        )
    return _Header(fields=fields, end=end)


def _shape(header: _Header, path: Path, on_note: OnNote) -> Shape3:
    channels = int(header.text("ElementNumberOfChannels", default="1"))
    if channels != 1:
        raise UserError(
            path, expected="real numbers", found=f"{channels} channels", remedy="convert the voxel type"
        )
    ndim = int(header.text("NDims"))
    sizes = [int(word) for word in header.text("DimSize").split()]
    if len(sizes) != ndim:
        raise ValueError(f"{len(sizes)} of {ndim} sizes")
    return one_volume(sizes, path, on_note)


def _stored_type(header: _Header, path: Path) -> np.dtype[Any]:
    name = header.text("ElementType")
    if name not in _TYPES or not header.flag("BinaryData"):
        found = f"element type {name or 'not stated'}" if name not in _TYPES else "numbers as text"
        raise UserError(path, expected="real numbers", found=found, remedy="convert the voxel type")
    big_endian = header.flag("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype(_TYPES[name]).newbyteorder(">" if big_endian else "<")
    require_real_numbers(dtype, path)
    return dtype


def _affine(header: _Header, on_note: OnNote) -> NDArray[np.float64]:
    """Voxel -> RAS mm. A fourth axis, of one volume, is left out."""
    ndim = int(header.text("NDims"))
    identity = " ".join(str(int(row == column)) for row in range(ndim) for column in range(ndim))
    rows = header.numbers("TransformMatrix", "Rotation", "Orientation", count=ndim**2, default=identity)
    directions = rows.reshape(ndim, ndim)[:3, :3].T
    spacing = header.numbers("ElementSpacing", "ElementSize", count=ndim)[:3]
    offset = header.numbers("Offset", "Position", "Origin", count=ndim)[:3]
    unit = header.text("DistanceUnits")
    if unit not in _MM_PER_UNIT:
        raise ValueError("an unknown DistanceUnits")
    if _MM_PER_UNIT[unit] != 1:
        on_note(f"Its lengths are in {unit}; they were turned into millimetres.")
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing * _MM_PER_UNIT[unit]
    affine[:3, 3] = offset * _MM_PER_UNIT[unit]
    return LPS_TO_RAS @ affine
