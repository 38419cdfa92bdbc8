"""Small NIfTI files, with headers as they come."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image

SHAPE = (2, 3, 4)

COSINE, SINE = np.cos(0.3), np.sin(0.3)
#: 0.3 rad about x, spacing 0.7 x 1.1 x 2.5 mm; determinant above 0.
OBLIQUE = np.array(
    [
        [0.7, 0, 0, -101.3],
        [0, 1.1 * COSINE, -2.5 * SINE, 55.5],
        [0, 1.1 * SINE, 2.5 * COSINE, 7],
        [0, 0, 0, 1],
    ]
)
MIRRORED = OBLIQUE @ np.diag([-1.0, 1, 1, 1])
IN_MICRONS = np.diag([1000.0, 1000, 1000, 1]) @ OBLIQUE
ELSEWHERE = np.diag([3.0, 2, 1, 1])
SHEARED = OBLIQUE + np.array([[0, 0.4, 0, 0], *np.zeros((3, 4))])


def header(*, sform=None, qform=None, units="mm", slope=None, big_endian=False) -> Nifti1Header:
    made = Nifti1Header(endianness=">" if big_endian else "<")
    made.set_data_shape(SHAPE)
    made.set_data_dtype(np.int16)
    made.set_zooms((0.7, 1.1, 2.5))
    made.set_xyzt_units(units)
    if slope is not None:
        made.set_slope_inter(*slope)
    for setter, form in ((made.set_qform, qform), (made.set_sform, sform)):
        if form is not None:
            setter(form[0], code=form[1])
    return made


HEADERS = {
    "qform only": header(qform=(OBLIQUE, 1)),
    "qform only, left handed": header(qform=(MIRRORED, 1)),
    "sform only": header(sform=(OBLIQUE, 2)),
    "sform only, sheared": header(sform=(SHEARED, 4)),
    "both": header(sform=(OBLIQUE, 1), qform=(OBLIQUE, 1)),
    "both, left handed": header(sform=(MIRRORED, 2), qform=(MIRRORED, 3)),
    "qform kept without a code": header(sform=(OBLIQUE, 2), qform=(ELSEWHERE, 0)),
    "none": header(),
    "no units": header(sform=(OBLIQUE, 1), units=0),
    "microns": header(sform=(IN_MICRONS, 1), units="micron"),
    "scaled": header(sform=(OBLIQUE, 1), slope=(0.5, -3)),
    "big endian": header(sform=(MIRRORED, 2), qform=(MIRRORED, 1), big_endian=True),
}


def write_raw(path: Path, head: Nifti1Header, stored: np.ndarray) -> Path:
    """A file of exactly this header and these stored numbers; nibabel's images would mend the header."""
    head = head.copy()
    head["vox_offset"] = 352
    head["magic"] = b"n+1"
    body = stored.astype(head.get_data_dtype()).tobytes(order="F")
    content = head.binaryblock + b"\0" * 4 + body
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_image(path: Path, array: np.ndarray, affine=None) -> Path:
    image = Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    image.to_filename(path)
    return path


def stored_numbers() -> np.ndarray:
    return np.arange(24, dtype=np.int16).reshape(SHAPE) - 5
