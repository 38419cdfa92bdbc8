"""DICOM files of a folder, without their pixels, and what each says of its place and numbers.

No message names a patient, nor quotes what a file says but codes and numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    generate_uid,
)

from ct_attn.errors import UserError
from ct_attn.scan_io.options import AS_IT_IS, ReadingOptions

EXPORT_AGAIN = "export the series again, or convert it to NIfTI"

_SHARED_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_META_BYTES = 128 + 4 + 12  # preamble, DICM, and the element that says how long the rest is
_MOST_DEFLATED_BYTES = 1 << 26
_OF_HU = {"", "HU", "US", "HU_MOD"}  # US is "unspecified": many scanners mean HU


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """Where one file's image lies and what its stored numbers mean.

    ``position_mm`` [3] is the LPS centre of the first pixel, ``orientation`` [6]
    holds the LPS directions of growing column and growing row, ``pixel_spacing_mm``
    [2] the steps between rows and between columns. HU = stored * slope + intercept.
    """

    path: Path
    shape: tuple[int, int]
    position_mm: NDArray[np.float64]
    orientation: NDArray[np.float64]
    pixel_spacing_mm: NDArray[np.float64]
    thickness_mm: float
    frame_of_reference: str
    transfer_syntax: UID
    slope: float
    intercept: float
    is_localiser: bool

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])


@disable_value_validation()  # its warnings quote the file, patient and all
def read_headers(folder: Path) -> list[pydicom.FileDataset]:
    """The DICOM objects directly in ``folder``, by file name, without their pixels.

    Empty UIDs are filled in memory, the same ones at every reading, so that code
    which needs them can take hard de-identified files: SOP class and instance from
    the file meta information, study, series and frame of reference as if files that
    name none belonged together. Raises :class:`UserError` when there is none.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file() and is_dicom(path))
    headers = [
        header for header in map(_read_header, paths) if header.SOPClassUID != MediaStorageDirectoryStorage
    ]
    if not headers:
        remedy = "name the folder that holds the slices"
        raise UserError(folder, expected="a DICOM CT series", found="no DICOM image", remedy=remedy)
    for level in _SHARED_UIDS:
        _fill_shared_uid(headers, level)
    return headers


def _read_header(path: Path) -> pydicom.FileDataset:
    with refusing_damage(path):
        require_modest_deflation(path)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        meta = header.file_meta
        for keyword in (*_SHARED_UIDS, "Modality", "ImageType"):
            header.get(keyword)  # pydicom parses a value, and finds it damaged, when it is first asked for
        guess = CTImageStorage if header.get("Modality") == "CT" else ""
        header.SOPClassUID = header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or guess
        header.SOPInstanceUID = (
            header.get("SOPInstanceUID")
            or meta.get("MediaStorageSOPInstanceUID")
            or generate_uid(entropy_srcs=[str(path.resolve())])
        )
    return header


def require_modest_deflation(path: Path) -> None:
    """Refuse a deflated file that would unpack to more than any slice; pydicom unpacks all at once."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    with path.open("rb") as file:
        file.seek(_META_BYTES + int(meta.FileMetaInformationGroupLength))
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        piece = file.read(1 << 16)
        while piece and not inflate.eof:
            size += len(inflate.decompress(piece, 1 << 20))
            if size > _MOST_DEFLATED_BYTES:
                raise ValueError("too large when unpacked")
            piece = inflate.unconsumed_tail or file.read(1 << 16)


def _fill_shared_uid(headers: Sequence[pydicom.FileDataset], level: str) -> None:
    instances = sorted(str(header.SOPInstanceUID) for header in headers)
    made = generate_uid(entropy_srcs=[level, *instances])
    for header in headers:
        if not header.get(level):
            setattr(header, level, made)


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Turn whatever pydicom and the decoders raise on a bad file into one clear line."""
    try:
        yield
    except Exception as error:  # they raise nearly anything, by where the damage is
        found = f"a damaged one ({type(error).__name__})"
        raise UserError(path, expected="a whole DICOM file", found=found, remedy="copy it again") from error


def is_ct(header: pydicom.FileDataset) -> bool:
    return header.SOPClassUID == CTImageStorage and (header.get("Modality") or "CT") == "CT"


def is_localiser(header: pydicom.FileDataset) -> bool:
    """Whether its image type says so (PS3.3 C.8.2.1.1.1); damaged ones say nothing."""
    value = header.get("ImageType") or ()
    return "LOCALIZER" in ((value,) if isinstance(value, str) else tuple(value))


def slice_of(header: pydicom.FileDataset, options: ReadingOptions = AS_IT_IS) -> Slice:
    """What ``header`` says; raises :class:`UserError` unless it says all that CT needs.

    With ``options.rescale`` a missing rescale slope and intercept are 1 and 0.
    """
    path = Path(str(header.filename))
    try:
        _require_single_grey_image(header)
        if options.rescale is None:
            _require_hu(header)
        rescale = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}
        rows, columns, slope, intercept = (
            rescale[keyword]
            if options.rescale is not None and keyword in rescale and not header.get(keyword)
            else float(numbers(header, keyword, 1)[0])
            for keyword in ("Rows", "Columns", *rescale)
        )
        return Slice(
            path=path,
            shape=(int(rows), int(columns)),
            position_mm=numbers(header, "ImagePositionPatient", 3),
            orientation=numbers(header, "ImageOrientationPatient", 6),
            pixel_spacing_mm=numbers(header, "PixelSpacing", 2),
            thickness_mm=_thickness_mm(header),
            frame_of_reference=str(header.FrameOfReferenceUID),
            transfer_syntax=UID(str(header.file_meta.get("TransferSyntaxUID", ""))),
            slope=slope,
            intercept=intercept,
            is_localiser=is_localiser(header),
        )
    except ValueError as error:
        raise UserError(
            path,
            expected="a CT slice that says where it lies and what its numbers mean",
            found=str(error),
            remedy=EXPORT_AGAIN,
        ) from error


def _require_single_grey_image(header: pydicom.FileDataset) -> None:
    for keyword in ("SamplesPerPixel", "NumberOfFrames"):
        if keyword in header and numbers(header, keyword, 1)[0] != 1:
            raise ValueError(f"{keyword} other than 1")


def _require_hu(header: pydicom.FileDataset) -> None:
    """Dual energy scanners write electron densities, percentages and more as CT."""
    if str(header.get("RescaleType") or "").upper() not in _OF_HU:
        raise ValueError("a RescaleType other than HU (--rescale overrides)")


def _thickness_mm(header: pydicom.FileDataset) -> float:
    """The step to a next slice, for a slice that has none; 0 when it isn't said."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in header and header[keyword].value:
            return float(numbers(header, keyword, 1)[0])
    return 0.0


def numbers(header: pydicom.FileDataset, keyword: str, count: int) -> NDArray[np.float64]:
    """The ``count`` numbers of an element; a complaint names it and holds none of its text."""
    try:
        found = np.array(header[keyword].value, dtype=np.float64).reshape(-1)
    except Exception as error:  # pydicom parses the value now
        raise ValueError(f"no {keyword}") from error
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ValueError(f"no {count} finite number(s) in {keyword}")
    return found
