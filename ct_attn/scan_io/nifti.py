"""NIfTI files, read and written through nibabel.

Header and voxels are checked and read here, since nibabel mends headers in silence and
stops before gzip's checksum; SimpleITK reads a truncated ``.nii.gz`` as zeros.
"""

# mypy: allow-untyped-calls
# (nibabel is annotated in part)

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1Image
from nibabel.volumeutils import native_code
from numpy.typing import NDArray

from ct_attn.atomic import replacing
from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme, Structure
from ct_attn.scan_io.nifti_header import Head, forms_agree, opened
from ct_attn.scan_io.options import AS_IT_IS, OnNote, ReadingOptions, no_note
from ct_attn.scan_io.values import StoredVolume, read_blocks, read_hu, require_finite, scaled
from ct_attn.volume import Grid, Mask, Volume

SUFFIXES = (".nii.gz", ".nii")

_COMMENT = 6  # the NIfTI extension code for plain text
_SCHEME_KEY = "ct_attn label scheme"


@dataclass(frozen=True, slots=True, kw_only=True)
class NiftiFrame:
    """How a NIfTI file states its grid, so that a mask can state it alike.

    ``sform`` and ``qform`` are the header's own fields, which may differ from each
    other; ``units`` is its ``xyzt_units`` byte.
    """

    sform_code: int
    qform_code: int
    units: int
    sform: tuple[tuple[float, ...], ...]
    quaternion: tuple[float, float, float]
    offset: tuple[float, float, float]
    pixdim: tuple[float, ...]


def has_nifti_name(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """The file's name without ``.nii`` or ``.nii.gz``."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def read_volume(path: Path, options: ReadingOptions = AS_IT_IS, on_note: OnNote = no_note) -> Volume:
    """The values in ``path`` on its grid: int16 where the file's integers fit, else float32.

    Raises :class:`UserError` when the file is missing, not NIfTI, torn, larger than
    ``options`` allow, not a single 3D volume of real numbers, doesn't say where it
    lies, or holds NaN or infinity.
    """
    return read_stored(path, options, on_note).volume


def read_stored(path: Path, options: ReadingOptions = AS_IT_IS, on_note: OnNote = no_note) -> StoredVolume:
    """The same, with what the file stores."""
    with opened(path, options, on_note) as (head, stream):
        hu = read_hu(stream, head.grid.shape, head.dtype, slope=head.slope, intercept=head.intercept)
    require_finite(hu, path)
    unscaled = (head.slope, head.intercept) == (1, 0)
    return StoredVolume(volume=Volume(hu=hu, grid=head.grid), eight_bit=head.dtype.itemsize == 1 and unscaled)


def read_grid(path: Path) -> Grid:
    """The grid of the image in ``path``, from its header alone."""
    with opened(path) as (head, _):
        return head.grid


def read_mask(path: Path) -> tuple[Mask, LabelScheme | None]:
    """The label map in ``path``, and the meaning of its codes when the file says so.

    Raises :class:`UserError` as :func:`read_volume` does, and when a value is not a
    whole number from 0 to 255.
    """
    with opened(path) as (head, stream):
        labels = np.empty(prod(head.grid.shape), dtype=np.uint8)
        start = 0
        for block in read_blocks(stream, labels.size, head.dtype):
            codes = labels[start : start + block.size]
            fill_codes(codes, scaled(block, head.slope, head.intercept), path)
            start += block.size
        scheme = _read_scheme(head)
    return Mask(labels=labels.reshape(head.grid.shape, order="F"), grid=head.grid), scheme


def fill_codes(codes: NDArray[np.uint8], values: NDArray[Any], path: Path) -> None:
    """Put ``values``, read from ``path``, into ``codes`` of the same shape.

    Raises :class:`UserError` when one is not a whole number from 0 to 255.
    """
    with np.errstate(invalid="ignore"):
        codes[:] = values.astype(np.uint8, casting="unsafe")
    if not np.array_equal(codes, values):
        raise UserError(
            path,
            expected="label codes (whole numbers from 0 to 255)",
            found=f"values from {values.min():g} to {values.max():g}",
            remedy="give a label map, not an image or probabilities",
        )


def require_known_codes(mask: Mask, scheme: LabelScheme, path: Path) -> None:
    """Raise :class:`UserError` when ``mask``, read from ``path``, holds a code ``scheme`` lacks."""
    unknown = scheme.unknown_codes(mask.labels)
    if unknown:
        known = ", ".join(f"{code} {name}" for name, code in scheme.codes.items())
        raise UserError(
            path,
            expected=f"the label codes 0 background, {known}",
            found=f"code {', '.join(map(str, unknown))}",
            remedy="recode the label map, or say what its codes mean",
        )


def read_frame(path: Path) -> NiftiFrame:
    """How ``path`` states its grid."""
    with opened(path) as (head, _):
        header = head.header
    return NiftiFrame(
        sform_code=int(header["sform_code"]),
        qform_code=int(header["qform_code"]),
        units=int(header["xyzt_units"]),
        sform=tuple(tuple(map(float, header[f"srow_{axis}"])) for axis in "xyz"),
        quaternion=(float(header["quatern_b"]), float(header["quatern_c"]), float(header["quatern_d"])),
        offset=(float(header["qoffset_x"]), float(header["qoffset_y"]), float(header["qoffset_z"])),
        pixdim=tuple(map(float, header["pixdim"])),
    )


def frame_of(path: Path, grid: Grid) -> NiftiFrame | None:
    """The frame of ``path`` when its header alone says ``grid``.

    None for other kinds of files, and where the user had to say which grid is right.
    """
    if not has_nifti_name(path):
        return None
    try:
        return read_frame(path) if read_grid(path).is_same_as(grid) else None
    except UserError:
        return None


def write_mask(mask: Mask, path: Path, *, scheme: LabelScheme, frame: NiftiFrame | None = None) -> None:
    """Write ``mask`` as uint8 NIfTI whose header says what its codes mean.

    With ``frame`` (of the scan the mask was made for) the file states its grid in the
    same words: sform, qform, their codes and the units. Without it, the affine goes
    into both, as scanner coordinates in mm.
    """
    image = _image(mask.labels, mask.grid, frame)
    image.header.extensions.append(Nifti1Extension(_COMMENT, _dump_scheme(scheme)))
    _save(image, path)


def write_volume(volume: Volume, path: Path, *, frame: NiftiFrame | None = None) -> None:
    """Write values on a grid as NIfTI (int16 or float32 as held); ``frame`` as in :func:`write_mask`."""
    _save(_image(volume.hu, volume.grid, frame), path)


def _image(array: NDArray[Any], grid: Grid, frame: NiftiFrame | None) -> Nifti1Image:
    """``array`` on ``grid``, stated in the words of ``frame``, or without it as scanner coordinates."""
    if frame is not None:
        image = Nifti1Image(array, None)  # with an affine nibabel would state it in its own words
        _copy_frame(image.header, frame)
        return image
    image = Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    # A qform knows no shear, and near half a turn its float32 quaternion loses a tenth of a mm.
    if not forms_agree(image.header.get_sform(), image.header.get_qform(), grid.shape):
        image.header["qform_code"] = 0
    return image


def _copy_frame(header: Nifti1Header, frame: NiftiFrame) -> None:
    header["sform_code"] = frame.sform_code
    header["qform_code"] = frame.qform_code
    header["xyzt_units"] = frame.units
    for axis, row in zip("xyz", frame.sform, strict=True):
        header[f"srow_{axis}"] = row
    for axis, value in zip("bcd", frame.quaternion, strict=True):
        header[f"quatern_{axis}"] = value
    for axis, value in zip("xyz", frame.offset, strict=True):
        header[f"qoffset_{axis}"] = value
    header["pixdim"][:4] = frame.pixdim[:4]


def _save(image: Nifti1Image, path: Path) -> None:
    if not has_nifti_name(path):
        raise UserError(
            path, expected="a name ending in .nii.gz or .nii", found=path.name, remedy="rename the output"
        )
    with replacing(path) as partial:
        image.to_filename(partial)


def _dump_scheme(scheme: LabelScheme) -> bytes:
    structures = [{"code": s.code, "name": s.name, "organs": s.organs} for s in scheme.structures]
    return json.dumps({_SCHEME_KEY: structures}).encode()


def _read_scheme(head: Head) -> LabelScheme | None:
    flag, content = head.extensions[:4], head.extensions[4:]
    if not flag.strip(b"\0"):
        return None
    with warnings.catch_warnings(action="ignore"):  # of sizes that are no multiple of 16
        extensions = head.header.exts_klass.from_fileobj(
            BytesIO(content), len(content), head.header.endianness != native_code
        )
    for extension in extensions:
        if extension.get_code() != _COMMENT:
            continue
        try:
            structures = json.loads(extension.get_content())[_SCHEME_KEY]
            return LabelScheme(
                structures=tuple(Structure(**{**s, "organs": tuple(s["organs"])}) for s in structures)
            )
        except (ValueError, KeyError, TypeError):
            continue  # a comment that some other program left
    return None
