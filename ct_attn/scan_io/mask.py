"""Label maps as users name them: NIfTI, MetaImage or NRRD files, in a folder or alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme
from ct_attn.scan_io import metaimage, nifti, nrrd
from ct_attn.scan_io.limits import require_file
from ct_attn.volume import Mask

_SUFFIXES = (*nifti.SUFFIXES, metaimage.SUFFIX, nrrd.SUFFIX)
_SLICER = f".seg{nrrd.SUFFIX}"
_FORMATS = ".nii.gz, .nii, .mha or .nrrd"

#: Images of other tools, which are refused: left aside in silence, a case would lack its mask.
_FOREIGN = (".mhd", ".nhdr", ".hdr", ".img", ".img.gz", ".mgz", ".mgh", ".nii.bz2", ".nii.zst")


def has_mask_name(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES)


def mask_stem(path: Path) -> str:
    """The file's name without its ending; ``.nii.gz`` is one, as is 3D Slicer's ``.seg.nrrd``."""
    if path.name.lower().endswith(_SLICER):
        return path.name[: -len(_SLICER)]
    return nifti.stem(path)


def read_mask(path: Path) -> tuple[Mask, LabelScheme | None]:
    """The label map in ``path``, and the meaning of its codes when the file says so (NIfTI only).

    Raises :class:`UserError` when the file is none of these formats, missing or torn, or
    holds a value that is not a whole number from 0 to 255.
    """
    require_file(path, "mask")
    if not has_mask_name(path):
        raise UserError(
            path, expected=f"a mask as {_FORMATS}", found="another kind of file", remedy="convert it to NIfTI"
        )
    if nifti.has_nifti_name(path):
        return nifti.read_mask(path)
    reader = metaimage if path.suffix.lower() == metaimage.SUFFIX else nrrd
    volume = reader.read_stored(path).volume
    labels = np.empty(volume.grid.shape, dtype=np.uint8, order="F")
    nifti.fill_codes(labels, volume.hu, path)
    return Mask(labels=labels, grid=volume.grid), None


def find_masks(folder: Path) -> dict[str, Path]:
    """The label maps directly in ``folder`` by the stem of their names; hidden files are passed over.

    Other kinds of files are left aside, but for images that can't be read. Raises
    :class:`UserError` naming the files when there is such an image, two have the same
    stem, or there is no mask.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
    foreign = [path.name for path in files if path.name.lower().endswith(_FOREIGN)]
    if foreign:
        raise UserError(
            folder,
            expected=f"masks as {_FORMATS}",
            found=", ".join(foreign),
            remedy="convert them to NIfTI, or move them away",
        )
    found: dict[str, Path] = {}
    for path in filter(has_mask_name, files):
        other = found.setdefault(mask_stem(path), path)
        if other is not path:
            raise UserError(
                folder,
                expected="one mask for each case",
                found=f"{other.name} and {path.name}",
                remedy="remove one, or rename it",
            )
    if not found:
        others = ", ".join(path.name for path in files[:3]) + (", ..." if len(files) > 3 else "")
        raise UserError(
            folder,
            expected=f"masks as {_FORMATS}",
            found=f"only {others}" if files else "none",
            remedy="check the path",
        )
    return found
