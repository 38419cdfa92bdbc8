"""Small MetaImage and NRRD files, header line by header line."""

from __future__ import annotations

import zlib
from pathlib import Path

import nrrd
import numpy as np

from ct_attn.volume import LPS_TO_RAS, Grid

_MET_TYPES = {
    "int8": "MET_CHAR", "uint8": "MET_UCHAR", "int16": "MET_SHORT", "uint16": "MET_USHORT",
    "int32": "MET_INT", "uint32": "MET_UINT", "int64": "MET_LONG_LONG",
    "float32": "MET_FLOAT", "float64": "MET_DOUBLE",
}  # fmt: skip


def write_mha(
    path: Path, array: np.ndarray, grid: Grid, *, packed=False, big_endian=False, replaced=()
) -> Path:
    """``array`` on ``grid``; ``replaced`` are pairs of texts in the header and what to write instead."""
    affine = LPS_TO_RAS @ grid.affine
    directions = affine[:3, :3] / grid.spacing_mm
    order = ">" if big_endian else "<"
    body = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    lines = [
        "ObjectType = Image",
        f"NDims = {array.ndim}",
        "BinaryData = True",
        f"BinaryDataByteOrderMSB = {big_endian}",
        f"CompressedData = {packed}",
        "TransformMatrix = " + " ".join(f"{value:.17g}" for value in directions.T.ravel()),
        "Offset = " + " ".join(f"{value:.17g}" for value in affine[:3, 3]),
        "ElementSpacing = " + " ".join(f"{value:.17g}" for value in grid.spacing_mm),
        "DimSize = " + " ".join(map(str, array.shape)),
        f"ElementType = {_MET_TYPES[array.dtype.name]}",
        "ElementDataFile = LOCAL",
    ]
    head = "\n".join(lines) + "\n"
    for old, new in replaced:
        assert old in head
        head = head.replace(old, new)
    path.write_bytes(head.encode() + (zlib.compress(body) if packed else body))
    return path


def write_nrrd(path: Path, array: np.ndarray, grid: Grid, **fields) -> Path:
    """``array`` on ``grid`` as pynrrd writes it; ``fields`` replace header fields, None leaves one out."""
    affine = LPS_TO_RAS @ grid.affine
    header = {
        "space": "left-posterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "encoding": "raw",
    } | {key.replace("_", " "): value for key, value in fields.items()}
    nrrd.write(str(path), array, {key: value for key, value in header.items() if value is not None})
    return path
