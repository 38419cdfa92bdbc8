"""What a NIfTI header says, taken at its word or refused.

nibabel interprets the fields. Its checks are left out since they mend in silence: a
spacing of zero becomes 1 mm, a negative one positive.
"""

# mypy: allow-untyped-calls
# (nibabel is annotated in part)

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.scan_io.limits import (
    ByteStream,
    checked_grid,
    one_volume,
    refusing_damage,
    require_allowed_size,
    require_file,
    require_real_numbers,
    require_stored_size,
)
from ct_attn.scan_io.options import AS_IT_IS, OnNote, ReadingOptions, no_note
from ct_attn.volume import Grid, Shape3

_CLASSES = {348: Nifti1Header, 540: Nifti2Header}
_MOST_EXTENSION_BYTES = 1 << 24
_SAME_FORM_MM = 1e-2
_UNIT_BITS = 7  # of xyzt_units; the others are of time
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "metres", 3: "microns"}
_MEND = "mend the file's sform or qform"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """A checked header; ``dtype`` is that of the stored numbers, HU = stored * slope + intercept."""

    header: Nifti1Header
    grid: Grid
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    extensions: bytes


@contextmanager
def opened(
    path: Path, options: ReadingOptions = AS_IT_IS, on_note: OnNote = no_note
) -> Iterator[tuple[Head, ByteStream]]:
    """The header of ``path`` and its bytes from the first voxel on, unpacked.

    Raises :class:`UserError` for what is no NIfTI file of one real 3D volume, is too
    large, too small for its dims, or does not say where it lies. What libraries raise
    on damage inside the block becomes one, too.
    """
    require_file(path, "NIfTI")
    packed = path.name.lower().endswith(".gz")
    with refusing_damage(path, "NIfTI"), path.open("rb") as file:
        stream: ByteStream = gzip.GzipFile(fileobj=file) if packed else file
        yield _read_head(stream, path, options, on_note, packed=packed), stream


def _read_head(
    stream: ByteStream, path: Path, options: ReadingOptions, on_note: OnNote, *, packed: bool
) -> Head:
    header = _parse(stream, path)
    ndim = int(header["dim"][0])
    if not 1 <= ndim <= 7:
        raise _not_nifti(path, f"{ndim} dimensions")
    shape = one_volume(header["dim"][1 : 1 + ndim], path, on_note)
    require_allowed_size(shape, options, path)
    dtype = _stored_type(header, path)
    size, start = int(header["sizeof_hdr"]), _data_start(header, path)
    require_stored_size(path, start + prod(shape) * dtype.itemsize, packed=packed)
    grid = checked_grid(shape, _affine(header, shape, path, options, on_note), path, remedy=_MEND)
    extensions = stream.read(start - size)
    if len(extensions) < start - size:
        raise ValueError("it ends in its header")
    slope, intercept = header.get_slope_inter()
    return Head(
        header=header,
        grid=grid,
        dtype=dtype,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        extensions=extensions,
    )


def _parse(stream: ByteStream, path: Path) -> Nifti1Header:
    first = stream.read(4)
    orders: tuple[tuple[Literal["little", "big"], str], ...] = (("little", "<"), ("big", ">"))
    for order, endianness in orders:
        size = int.from_bytes(first, order)
        if size not in _CLASSES:
            continue
        block = first + stream.read(size - 4)
        if len(block) < size:
            raise ValueError("it ends in its header")
        header = _CLASSES[size](block, endianness=endianness, check=False)
        if bytes(header["magic"].item()).rstrip(b"\0") != header.single_magic.rstrip(b"\0"):
            raise _not_nifti(path, "a header without the magic string of a single NIfTI file")
        return header
    raise _not_nifti(path, "something else")


def _not_nifti(path: Path, found: str) -> UserError:
    return UserError(path, expected="a NIfTI file", found=found, remedy="convert it to NIfTI first")


def _stored_type(header: Nifti1Header, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        code = int(header["datatype"])
        raise UserError(
            path, expected="real numbers", found=f"unknown data type {code}", remedy="convert the voxel type"
        ) from error
    require_real_numbers(dtype, path)
    return dtype


def _data_start(header: Nifti1Header, path: Path) -> int:
    """Where the voxels begin; 0 means right after header and extension flag."""
    start = float(header["vox_offset"])
    least = header.single_vox_offset
    if start == 0:
        return int(least)
    if not least <= start <= _MOST_EXTENSION_BYTES or start != int(start):
        raise _not_nifti(path, f"voxels that begin at byte {start:g}")
    return int(start)


def _affine(
    header: Nifti1Header, shape: Shape3, path: Path, options: ReadingOptions, on_note: OnNote
) -> NDArray[np.float64]:
    """Voxel -> RAS mm, of sform or qform, or without both of the spacing alone."""
    sform = np.array(header.get_sform(), dtype=np.float64) if header["sform_code"] > 0 else None
    qform = _qform(header) if header["qform_code"] > 0 else None
    if sform is None and qform is None:
        return _affine_of_spacing(header, path, options, on_note)
    if options.spacing_mm is not None:
        on_note("It says where it lies; --spacing was not used.")
    if sform is not None and qform is not None:
        _require_agreement(sform, qform, shape, path, options, on_note)
    chosen = qform if sform is None or (qform is not None and options.prefer == "qform") else sform
    return _in_mm(np.asarray(chosen), header, on_note)


def _qform(header: Nifti1Header) -> NDArray[np.float64]:
    """The qform's affine, NaN where its fields make none."""
    copied = header.copy()
    copied["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # as NIfTI's C library takes it
    try:
        return np.array(copied.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return np.full((4, 4), np.nan)


def _require_agreement(
    sform: NDArray[np.float64],
    qform: NDArray[np.float64],
    shape: Shape3,
    path: Path,
    options: ReadingOptions,
    on_note: OnNote,
) -> None:
    if forms_agree(sform, qform, shape):
        return
    apart_mm = _apart_mm(sform, qform, shape)
    apart = f"sform and qform that disagree by {apart_mm:.3g} mm at a corner"
    if not np.isfinite(apart_mm):
        apart = "sform and qform of which one is no affine"
    if options.prefer is None:
        raise UserError(
            path,
            expected="one place of the scan",
            found=apart,
            remedy="say which is right with --prefer sform or --prefer qform",
        )
    on_note(f"It has {apart}; the {options.prefer} was taken, as --prefer says.")


def forms_agree(sform: NDArray[np.float64], qform: NDArray[np.float64], shape: Shape3) -> bool:
    """Whether both affines put the corners of a grid of ``shape`` at the same place, within 0.01 mm."""
    return _apart_mm(sform, qform, shape) <= _SAME_FORM_MM  # false for NaN


def _apart_mm(sform: NDArray[np.float64], qform: NDArray[np.float64], shape: Shape3) -> float:
    corners = np.array([[*corner, 1] for corner in product(*((0, size - 1) for size in shape))])
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.linalg.norm(corners @ (sform - qform)[:3].T, axis=1).max())


def _affine_of_spacing(
    header: Nifti1Header, path: Path, options: ReadingOptions, on_note: OnNote
) -> NDArray[np.float64]:
    """NIfTI's method 1: the spacing, x to the left, the middle at the origin."""
    stated = np.array(header["pixdim"][1:4], dtype=np.float64)
    copied = header.copy()
    if options.spacing_mm is not None and (stated == 0).any():
        copied["pixdim"][1:4] = options.spacing_mm
        copied["xyzt_units"] = 2
        on_note(f"It states no spacing; {_by(options.spacing_mm)} mm was taken, as --spacing says.")
    elif not (np.isfinite(stated).all() and (stated > 0).all()):
        raise UserError(
            path,
            expected="a spacing, sform or qform",
            found=f"spacing {_by(stated)} and neither form",
            remedy="if you know it, give it with --spacing X Y Z in mm",
        )
    elif options.spacing_mm is not None:
        on_note("It states its spacing; --spacing was not used.")
    on_note("It has neither sform nor qform; its axes were taken to run left, anterior and superior.")
    return _in_mm(np.array(copied.get_base_affine(), dtype=np.float64), copied, on_note)


def _in_mm(affine: NDArray[np.float64], header: Nifti1Header, on_note: OnNote) -> NDArray[np.float64]:
    unit = int(header["xyzt_units"]) & _UNIT_BITS
    if unit not in _MM_PER_UNIT:
        on_note(f"Its unit of length has the unknown code {unit}; millimetres were taken.")
    if unit in _UNIT_NAMES:
        on_note(f"Its lengths are in {_UNIT_NAMES[unit]}; they were turned into millimetres.")
    with np.errstate(invalid="ignore"):  # an infinite affine is refused later
        return np.asarray(np.diag([*[_MM_PER_UNIT.get(unit, 1.0)] * 3, 1.0]) @ affine)


def _by(steps: Any) -> str:
    return " x ".join(f"{float(step):g}" for step in steps)
