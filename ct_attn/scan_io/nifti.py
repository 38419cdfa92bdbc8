"""NIfTI files, read and written through nibabel.

SimpleITK reads a truncated ``.nii.gz`` as zeros without a word; nibabel raises.
"""

# mypy: allow-untyped-calls
# (nibabel is annotated in part)

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1Image
from numpy.typing import NDArray

from ct_attn.atomic import replacing
from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme, Structure
from ct_attn.volume import Grid, Mask, Volume

SUFFIXES = (".nii.gz", ".nii")

_COMMENT = 6  # the NIfTI extension code for plain text
_SCHEME_KEY = "ct_attn label scheme"
_CHUNK_BYTES = 1 << 20


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


def read_volume(path: Path) -> Volume:
    """The CT scan in ``path``: int16 where the file's integers fit, else float32.

    Raises :class:`UserError` when the file is missing, not NIfTI, torn, not a
    single 3D volume of real numbers, or holds NaN or infinity.
    """
    image = _open(path)
    grid = _grid(image, path)
    hu = _as_hu(_read_array(image, path))
    if hu.dtype == np.float32 and not np.isfinite(hu).all():
        count = int(hu.size - np.isfinite(hu).sum())
        raise UserError(
            path, expected="finite HU", found=f"{count} voxels of NaN or infinity", remedy="mend the scan"
        )
    return Volume(hu=hu, grid=grid)


def read_grid(path: Path) -> Grid:
    """The grid of the image in ``path``, from its header alone."""
    return _grid(_open(path), path)


def read_mask(path: Path) -> tuple[Mask, LabelScheme | None]:
    """The label map in ``path``, and the meaning of its codes when the file says so.

    Raises :class:`UserError` as :func:`read_volume` does, and when a value is not a
    whole number from 0 to 255.
    """
    image = _open(path)
    grid = _grid(image, path)
    array = _read_array(image, path)
    with np.errstate(invalid="ignore"):
        labels = array.astype(np.uint8, casting="unsafe")
    if not np.array_equal(labels, array):
        raise UserError(
            path,
            expected="label codes (whole numbers from 0 to 255)",
            found=f"values from {array.min():g} to {array.max():g}",
            remedy="give a label map, not an image or probabilities",
        )
    return Mask(labels=labels, grid=grid), _read_scheme(image.header, path)


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
    header = _open(path).header
    return NiftiFrame(
        sform_code=int(header["sform_code"]),
        qform_code=int(header["qform_code"]),
        units=int(header["xyzt_units"]),
        sform=tuple(tuple(map(float, header[f"srow_{axis}"])) for axis in "xyz"),
        quaternion=(float(header["quatern_b"]), float(header["quatern_c"]), float(header["quatern_d"])),
        offset=(float(header["qoffset_x"]), float(header["qoffset_y"]), float(header["qoffset_z"])),
        pixdim=tuple(map(float, header["pixdim"])),
    )


def write_mask(mask: Mask, path: Path, *, scheme: LabelScheme, frame: NiftiFrame | None = None) -> None:
    """Write ``mask`` as uint8 NIfTI whose header says what its codes mean.

    With ``frame`` (of the scan the mask was made for) the file states its grid in the
    same words: sform, qform, their codes and the units. Without it, the affine goes
    into both, as scanner coordinates in mm.
    """
    image = Nifti1Image(mask.labels, mask.grid.affine)
    _state(image, mask.grid, frame)
    image.header.extensions.append(Nifti1Extension(_COMMENT, _dump_scheme(scheme)))
    _save(image, path)


def write_volume(volume: Volume, path: Path, *, frame: NiftiFrame | None = None) -> None:
    """Write values on a grid as NIfTI (int16 or float32 as held); ``frame`` as in :func:`write_mask`."""
    image = Nifti1Image(volume.hu, volume.grid.affine)
    _state(image, volume.grid, frame)
    _save(image, path)


def _state(image: Nifti1Image, grid: Grid, frame: NiftiFrame | None) -> None:
    """State the grid in the words of ``frame``, or without it as scanner coordinates."""
    if frame is not None:
        _copy_frame(image.header, frame)
        return
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1 if grid.is_orthogonal else 0)


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


@contextmanager
def _nifti_errors(path: Path) -> Iterator[None]:
    """Turn what nibabel raises on a bad file into one clear line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            path, expected="a NIfTI file", found="no such file", remedy="check the path"
        ) from error
    except (ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise UserError(
            path,
            expected="a NIfTI file",
            found=f"something else ({error})",
            remedy="convert it to NIfTI first",
        ) from error
    except (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error) as error:
        raise UserError(
            path,
            expected="a whole NIfTI file",
            found=f"a damaged one ({error})",
            remedy="copy it again from its source",
        ) from error


def _open(path: Path) -> Any:
    if path.is_dir():
        raise UserError(path, expected="a NIfTI file", found="a folder", remedy="name a file inside it")
    with _nifti_errors(path):
        image = nib.load(path)
    if not isinstance(image, Nifti1Image):
        raise UserError(
            path, expected="a NIfTI file", found=type(image).__name__, remedy="convert it to NIfTI first"
        )
    if not _is_one_volume(image.shape):
        raise UserError(
            path,
            expected="one 3D volume",
            found=f"an array of shape {image.shape}",
            remedy="extract one volume",
        )
    if image.get_data_dtype().kind not in "iuf":
        raise UserError(
            path, expected="real numbers", found=str(image.get_data_dtype()), remedy="convert the voxel type"
        )
    return image


def _is_one_volume(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 3 and min(shape) >= 1 and set(shape[3:]) <= {1}


def _read_array(image: Any, path: Path) -> NDArray[Any]:
    """The values [I, J, K] in the file's own type, or float32 where it scales them."""
    with _nifti_errors(path):
        array = _read_gzip(image, path) if path.name.lower().endswith(".gz") else _values(image)
        return np.asanyarray(array.reshape(image.shape[:3]))


def _read_gzip(image: Any, path: Path) -> NDArray[Any]:
    """Values and the rest of the file: gzip compares its checksum only at the end, nibabel stops before."""
    with gzip.open(path) as stream:
        array = _values(type(image).from_stream(stream))
        while stream.read(_CHUNK_BYTES):
            pass
    return array


def _values(image: Any) -> NDArray[Any]:
    """Not ``get_fdata``, nor nibabel's own scaling: both go through float64."""
    stored = image.dataobj.get_unscaled()
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    if (slope, intercept) == (1, 0):
        return np.asanyarray(stored)
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused later
        scaled = stored.astype(np.float32)
        scaled *= slope
        scaled += intercept
    return np.asanyarray(scaled)


def _as_hu(array: NDArray[Any]) -> NDArray[np.int16] | NDArray[np.float32]:
    limits = np.iinfo(np.int16)
    if array.dtype.kind in "iu" and array.min() >= limits.min and array.max() <= limits.max:
        return np.ascontiguousarray(array, dtype=np.int16)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _grid(image: Any, path: Path) -> Grid:
    try:
        return Grid(shape=image.shape[:3], affine=image.affine)
    except ValueError as error:
        raise UserError(
            path, expected="an invertible affine", found=str(error), remedy="mend the file's sform or qform"
        ) from error


def _dump_scheme(scheme: LabelScheme) -> bytes:
    structures = [{"code": s.code, "name": s.name, "organs": s.organs} for s in scheme.structures]
    return json.dumps({_SCHEME_KEY: structures}).encode()


def _read_scheme(header: Nifti1Header, path: Path) -> LabelScheme | None:
    for extension in header.extensions:
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
