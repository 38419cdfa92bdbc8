"""Scans as users name them: a NIfTI file, a folder of DICOM slices, a folder of either.

pydicom and highdicom are imported only when there is DICOM to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ct_attn.errors import UserError
from ct_attn.scan_io import nifti
from ct_attn.scan_io.options import AS_IT_IS, OnNote, ReadingOptions, no_note
from ct_attn.volume import Volume

_DICOM_MAGIC = b"DICM"
_DICOM_PREAMBLE_BYTES = 128
_DICOM_INDEX = "DICOMDIR"  # the standard's own name for a table of contents
_WANTED = "a .nii.gz or .nii file, or a folder of DICOM slices"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFile:
    """One scan to read: ``path`` is a NIfTI file or a folder that holds one DICOM series.

    ``name`` is the file's stem or the folder's name, to name outputs by; it comes
    from the path alone, never from what a DICOM file says of the patient.
    """

    name: str
    path: Path


def read_scan(path: Path, options: ReadingOptions = AS_IT_IS, on_note: OnNote = no_note) -> Volume:
    """The CT in ``path``, a NIfTI file or a folder that holds one DICOM series.

    Raises :class:`UserError` when it is neither, or cannot be trusted.
    """
    _require_there(path)
    if path.is_dir():
        if not _holds_dicom(path):
            raise UserError(
                path, expected=_WANTED, found="a folder without DICOM slices", remedy="name one scan"
            )
        from ct_attn.scan_io import dicom  # noqa: PLC0415 - highdicom is slow to import

        return dicom.read_series(path)
    _require_nifti_name(path)
    return nifti.read_volume(path)


def find_scans(path: Path) -> list[ScanFile]:
    """The scans that ``path`` names, by name.

    A NIfTI file or a folder of DICOM slices is one scan; a folder of NIfTI files
    (subfolders are not searched) or of folders with DICOM slices is one scan each.
    Hidden files are passed over. Raises :class:`UserError` when there is no scan, two
    have the same name, NIfTI and DICOM are mixed, or some subfolder holds none.
    """
    _require_there(path)
    if not path.is_dir():
        _require_nifti_name(path)
        return [_scan(path)]
    files = [entry for entry in _entries(path) if nifti.has_nifti_name(entry) and entry.is_file()]
    holds_dicom = _holds_dicom(path)
    if files and holds_dicom:
        raise UserError(
            path,
            expected="either NIfTI or DICOM",
            found="both",
            remedy="name one file, or move one kind elsewhere",
        )
    if holds_dicom:
        return [_scan(path)]
    return _in_name_order(files, path) if files else _in_name_order(_series_folders(path), path)


def _require_there(path: Path) -> None:
    if not path.exists():
        raise UserError(path, expected=_WANTED, found="no such file or folder", remedy="check the path")


def _require_nifti_name(path: Path) -> None:
    if nifti.has_nifti_name(path):
        return
    if _is_dicom(path):
        raise UserError(
            path, expected=_WANTED, found="one DICOM file", remedy="name the folder that holds its series"
        )
    raise UserError(path, expected=_WANTED, found="another kind of file", remedy="convert it to NIfTI first")


def _series_folders(path: Path) -> list[Path]:
    """The subfolders of ``path``, when each of them holds DICOM slices."""
    folders = [entry for entry in _entries(path) if entry.is_dir()]
    without = [folder.name for folder in folders if not _holds_dicom(folder)]
    if not folders or len(without) == len(folders):
        raise UserError(
            path, expected=_WANTED, found="no scan in this folder", remedy="name the folder of the scans"
        )
    if without:
        raise UserError(
            path,
            expected="DICOM slices in every subfolder",
            found=f"none directly in {', '.join(without)}",
            remedy="move other folders elsewhere, and slices up to the folder named like their scan",
        )
    return folders


def _in_name_order(paths: Sequence[Path], folder: Path) -> list[ScanFile]:
    scans = sorted(map(_scan, paths), key=lambda scan: scan.name)
    for scan, following in pairwise(scans):
        if scan.name == following.name:
            raise UserError(
                folder,
                expected="one file for each scan",
                found=f"{scan.path.name} and {following.path.name}",
                remedy="rename or remove one: their outputs would have the same name",
            )
    return scans


def _scan(path: Path) -> ScanFile:
    name = path.resolve().name if path.is_dir() else nifti.stem(path)
    return ScanFile(name=name, path=path)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(
            folder,
            expected="a readable folder",
            found=error.strerror or "none",
            remedy="check its permissions",
        ) from error


def _holds_dicom(folder: Path) -> bool:
    return any(_is_dicom(entry) for entry in _entries(folder) if entry.is_file())


def _is_dicom(path: Path) -> bool:
    if path.name == _DICOM_INDEX:
        return False
    try:
        with path.open("rb") as file:
            return file.read(_DICOM_PREAMBLE_BYTES + len(_DICOM_MAGIC)).endswith(_DICOM_MAGIC)
    except OSError:
        return False
