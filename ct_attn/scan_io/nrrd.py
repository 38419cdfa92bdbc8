"""NRRD files (``.nrrd``), whose headers pynrrd interprets.

Format: https://teem.sourceforge.net/nrrd/format.html. The voxels are read here, since
pynrrd unpacks as much as the file yields before it looks at the sizes.
"""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import nrrd
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
from ct_attn.volume import LPS_TO_RAS, Volume

SUFFIX = ".nrrd"

_Header = OrderedDict[str, Any]

_MOST_HEADER_BYTES = 1 << 16
_PACKINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_NAMES_OF_TYPES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPES = {name: code for code, names in _NAMES_OF_TYPES.items() for name in names.split(",")}
_MM_PER_UNIT = {"": 1.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "cm": 10.0, "m": 1000.0}
_TO_RAS = {
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1, 1, 1]),
    "las": np.diag([-1.0, 1, 1, 1]),
    "left-posterior-superior": LPS_TO_RAS,
    "lps": LPS_TO_RAS,
}
_EXPORT_AGAIN = "write the file again, or convert it to NIfTI"


def read_stored(path: Path, options: ReadingOptions = AS_IT_IS, on_note: OnNote = no_note) -> StoredVolume:
    """The volume in ``path``, RAS, and what the file stores.

    Raises :class:`UserError` when the file is no whole NRRD of one 3D volume of real
    numbers within the limits of ``options``, or doesn't say where it lies.
    """
    require_file(path, "NRRD")
    with refusing_damage(path, "NRRD"), path.open("rb") as file:
        header, end = _read_header(file, path)
        sizes = [int(size) for size in header["sizes"]]
        if len(sizes) != header["dimension"]:
            raise ValueError(f"{len(sizes)} sizes of {header['dimension']}")
        shape = one_volume(_spatial_first(sizes, header), path, on_note)
        require_allowed_size(shape, options, path)
        packing = _packing(header, path)
        dtype = _stored_type(header, path)
        require_stored_size(path, end + prod(shape) * dtype.itemsize, packed=packing != "raw")
        grid = checked_grid(shape, _affine(header, path, on_note), path, remedy=_EXPORT_AGAIN)
        file.seek(end)
        hu = read_hu(unpacked(file, packing), shape, dtype)
    require_finite(hu, path)
    return StoredVolume(volume=Volume(hu=hu, grid=grid), eight_bit=dtype.itemsize == 1)


def _read_header(file: BinaryIO, path: Path) -> tuple[_Header, int]:
    start = file.read(_MOST_HEADER_BYTES)
    text, blank, _ = start.partition(b"\n\n")
    if b"\r\n\r\n" in start[: len(text)]:
        text, blank, _ = start.partition(b"\r\n\r\n")
    if not (start.startswith(b"NRRD") and blank):
        raise UserError(path, expected="a NRRD file", found="something else", remedy="convert it to NIfTI")
    try:
        header: _Header = nrrd.read_header(text.splitlines())
    except nrrd.errors.NRRDError as error:
        raise ValueError(str(error)) from error
    if {"data file", "datafile"} & set(header):
        raise UserError(
            path, expected="a file that holds its voxels", found="another file's name", remedy=_EXPORT_AGAIN
        )
    if any(header.get(key) for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise UserError(
            path, expected="voxels right after the header", found="bytes to skip", remedy=_EXPORT_AGAIN
        )
    return header, len(text) + len(blank)


def _spatial_first(sizes: list[int], header: _Header) -> list[int]:
    """``sizes``, those of axes without a direction last (as one volume they are 1)."""
    directions = header.get("space directions")
    if directions is None or len(directions) != len(sizes):
        return sizes
    spatial = np.isfinite(np.asarray(directions)).all(axis=1)
    return [size for size, yes in zip(sizes, spatial, strict=True) if yes] + [
        size for size, yes in zip(sizes, spatial, strict=True) if not yes
    ]


def _stored_type(header: _Header, path: Path) -> np.dtype[Any]:
    name = str(header["type"])
    if name not in _TYPES:
        raise UserError(path, expected="real numbers", found=f"type {name}", remedy="convert the voxel type")
    dtype = np.dtype(_TYPES[name])
    if dtype.itemsize > 1:
        dtype = np.dtype({"little": "<", "big": ">"}[header["endian"]] + dtype.str[1:])
    require_real_numbers(dtype, path)
    return dtype


def _packing(header: _Header, path: Path) -> str:
    encoding = str(header["encoding"]).lower()
    if encoding not in _PACKINGS:
        raise UserError(
            path,
            expected="encoding raw, gzip or bzip2",
            found=encoding if encoding.isalnum() else "another one",
            remedy=_EXPORT_AGAIN,
        )
    return _PACKINGS[encoding]


def _affine(header: _Header, path: Path, on_note: OnNote) -> NDArray[np.float64]:
    """Voxel -> RAS mm."""
    space = str(header.get("space", "")).lower()
    directions, origin = header.get("space directions"), header.get("space origin")
    if space not in _TO_RAS or directions is None or origin is None:
        raise UserError(
            path,
            expected="space, space directions and space origin of a patient",
            found=f"space {space or 'not stated'}" if space not in _TO_RAS else "no directions or origin",
            remedy=_EXPORT_AGAIN,
        )
    rows = np.asarray(directions, dtype=np.float64)
    units = {str(unit) for unit in header.get("space units", [""])}
    if len(units) > 1 or not units <= set(_MM_PER_UNIT):
        raise ValueError("unknown space units")
    unit = units.pop()
    if _MM_PER_UNIT[unit] != 1:
        on_note(f"Its lengths are in {unit}; they were turned into millimetres.")
    affine = np.eye(4)
    affine[:3, :3] = rows[np.isfinite(rows).all(axis=1)].T * _MM_PER_UNIT[unit]
    affine[:3, 3] = np.asarray(origin, dtype=np.float64) * _MM_PER_UNIT[unit]
    return _TO_RAS[space] @ affine
