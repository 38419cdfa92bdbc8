"""One CT series in a folder of DICOM files, read as a volume.

File names mean nothing here: what a file holds says where it belongs. highdicom
judges whether the slices form a regular stack; a stack with a missing, doubled,
tilted or foreign slice is refused, since averaging the spacing over it (as GDCM
and MONAI do) moves organs. This module is the only place where DICOM's LPS
becomes RAS. No message names a patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from highdicom.spatial import create_affine_matrix_from_attributes, get_volume_positions
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.misc import is_dicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, CTImageStorage, MediaStorageDirectoryStorage, generate_uid

from ct_attn.errors import UserError
from ct_attn.volume import Grid, Volume

#: A slice may lie this far from its place in the regular stack. highdicom alone
#: accepts tilts up to 2.5 degrees, which move the last of 300 slices by a centimetre.
PLACE_TOLERANCE_MM = 0.1

_SAME_GEOMETRY = 1e-4  # of direction cosines and of pixel spacings in mm: 0.05 mm over 512 pixels
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_EXPORT_AGAIN = "export the series again, or convert it to NIfTI"
_SHARED_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Slice:
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

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])


@disable_value_validation()  # its warnings quote the file, patient and all
def read_series(folder: Path) -> Volume:
    """The CT whose slices are the DICOM files directly in ``folder``.

    ``hu`` is indexed [column, row, slice], slices along the normal of the image
    plane (an axial series comes out as LPS); int16 where every rescaled value is
    whole and fits, else float32. Files that aren't DICOM images are skipped.
    Raises :class:`UserError` when there is no DICOM file, several series, not a
    plain CT, a slice is missing, doubled, tilted or unlike the others, or pixels
    are damaged or compressed in a way that no installed decoder reads.
    """
    headers = read_headers(folder)
    _require_one_ct_series(headers, folder)
    slices = [_slice(header) for header in headers]
    _require_alike(slices, folder)
    _require_decoder(slices, folder)
    ordered, spacing_mm = _in_order(slices, folder)
    return Volume(hu=_stack(ordered), grid=_grid(ordered, spacing_mm, folder))


@disable_value_validation()
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
    with _refusing_damage(path):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        meta = header.file_meta
        for keyword in (*_SHARED_UIDS, "SeriesDescription"):
            header.get(keyword)  # pydicom parses a value, and finds it damaged, when it is first asked for
        guess = CTImageStorage if header.get("Modality") == "CT" else ""
        header.SOPClassUID = header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or guess
        header.SOPInstanceUID = (
            header.get("SOPInstanceUID")
            or meta.get("MediaStorageSOPInstanceUID")
            or generate_uid(entropy_srcs=[str(path.resolve())])
        )
    return header


def _fill_shared_uid(headers: Sequence[pydicom.FileDataset], level: str) -> None:
    instances = sorted(str(header.SOPInstanceUID) for header in headers)
    made = generate_uid(entropy_srcs=[level, *instances])
    for header in headers:
        if not header.get(level):
            setattr(header, level, made)


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Turn whatever pydicom and the decoders raise on a bad file into one clear line."""
    try:
        yield
    except Exception as error:  # they raise nearly anything, by where the damage is
        found = f"a damaged one ({type(error).__name__})"
        raise UserError(path, expected="a whole DICOM file", found=found, remedy="copy it again") from error


def _require_one_ct_series(headers: Sequence[pydicom.FileDataset], folder: Path) -> None:
    series: dict[str, list[pydicom.FileDataset]] = {}
    for header in headers:
        series.setdefault(str(header.SeriesInstanceUID), []).append(header)
    if len(series) > 1:
        found = f"{len(series)}: " + "; ".join(map(_describe_series, series.values()))
        raise UserError(folder, expected="one series", found=found, remedy="give each series its own folder")
    foreign = [header for header in headers if not _is_ct(header)]
    if foreign:
        found = _describe_series(foreign)
        raise UserError(folder, expected="CT images", found=found, remedy="name the folder of a CT series")


def _is_ct(header: pydicom.FileDataset) -> bool:
    return header.SOPClassUID == CTImageStorage and (header.get("Modality") or "CT") == "CT"


def _describe_series(headers: Sequence[pydicom.FileDataset]) -> str:
    """Such as ``CT Image Storage, CT, "Body 3.0" (20 files)``; says nothing of the patient."""
    sop_class = UID(str(headers[0].SOPClassUID))
    kind = sop_class.name if sop_class.type else "unknown kind"
    modality, description = (_readable(headers[0].get(word)) for word in ("Modality", "SeriesDescription"))
    return f'{kind}, {modality}, "{description}" ({len(headers)} files)'


def _readable(value: object) -> str:
    """A header's short text; damage can make it swallow its neighbours, the patient among them."""
    text = str(value or "not stated")
    return text if text.isprintable() and len(text) <= 64 else "unreadable"


def _slice(header: pydicom.FileDataset) -> _Slice:
    """What ``header`` says; raises :class:`UserError` unless it says all that CT needs."""
    path = Path(str(header.filename))
    try:
        _require_single_grey_image(header)
        rows, columns, slope, intercept = (
            float(_numbers(header, keyword, 1)[0])
            for keyword in ("Rows", "Columns", "RescaleSlope", "RescaleIntercept")
        )
        return _Slice(
            path=path,
            shape=(int(rows), int(columns)),
            position_mm=_numbers(header, "ImagePositionPatient", 3),
            orientation=_numbers(header, "ImageOrientationPatient", 6),
            pixel_spacing_mm=_numbers(header, "PixelSpacing", 2),
            thickness_mm=_thickness_mm(header),
            frame_of_reference=str(header.FrameOfReferenceUID),
            transfer_syntax=UID(str(header.file_meta.get("TransferSyntaxUID", ""))),
            slope=slope,
            intercept=intercept,
        )
    except ValueError as error:
        raise UserError(
            path,
            expected="a CT slice that says where it lies and what its numbers mean",
            found=str(error),
            remedy=_EXPORT_AGAIN,
        ) from error


def _require_single_grey_image(header: pydicom.FileDataset) -> None:
    for keyword in ("SamplesPerPixel", "NumberOfFrames"):
        if keyword in header and _numbers(header, keyword, 1)[0] != 1:
            raise ValueError(f"{keyword} other than 1")


def _thickness_mm(header: pydicom.FileDataset) -> float:
    """The step to a next slice, for a slice that has none; 0 when it isn't said."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in header and header[keyword].value:
            return float(_numbers(header, keyword, 1)[0])
    return 0.0


def _numbers(header: pydicom.FileDataset, keyword: str, count: int) -> NDArray[np.float64]:
    """The ``count`` numbers of an element; a complaint names it and holds none of its text."""
    try:
        numbers = np.array(header[keyword].value, dtype=np.float64).reshape(-1)
    except Exception as error:  # pydicom parses the value now
        raise ValueError(f"no {keyword}") from error
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"no {count} finite number(s) in {keyword}")
    return numbers


def _require_alike(slices: Sequence[_Slice], folder: Path) -> None:
    first = slices[0]
    differs: dict[str, Callable[[_Slice], bool]] = {
        "image size": lambda other: other.shape != first.shape,
        "pixel spacing": lambda other: not _close(other.pixel_spacing_mm, first.pixel_spacing_mm),
        "orientation": lambda other: not _close(other.orientation, first.orientation),
        "frame of reference": lambda other: other.frame_of_reference != first.frame_of_reference,
    }
    for what, other_than_first in differs.items():
        count = sum(map(other_than_first, slices))
        if count:
            raise UserError(
                folder,
                expected=f"slices that share one {what}",
                found=f"{count} of {len(slices)} unlike {first.path.name}",
                remedy="keep the slices of one stack (a localiser may be among them)",
            )


def _close(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    return bool(np.allclose(first, second, rtol=0, atol=_SAME_GEOMETRY))


def _require_decoder(slices: Sequence[_Slice], folder: Path) -> None:
    for syntax in {one.transfer_syntax for one in slices}:
        if not _can_decode(syntax):
            raise UserError(
                folder,
                expected="pixel data that an installed decoder reads",
                found=f"transfer syntax {syntax.name} ({syntax})",
                remedy="decompress the series (gdcmconv --raw) or convert it to NIfTI (dcm2niix)",
            )


def _can_decode(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _in_order(slices: Sequence[_Slice], folder: Path) -> tuple[list[_Slice], float]:
    """``slices`` along their normal, and the step between them in mm."""
    if len(slices) == 1:
        return list(slices), slices[0].thickness_mm
    spacing_mm, places = get_volume_positions(
        [one.position_mm.tolist() for one in slices],
        slices[0].orientation.tolist(),
        atol=PLACE_TOLERANCE_MM,
        index_convention=("R", "D"),
    )
    if spacing_mm is None or places is None:
        raise _irregular(slices, folder)
    return [slices[index] for index in np.argsort(places)], float(spacing_mm)


def _grid(ordered: Sequence[_Slice], spacing_mm: float, folder: Path) -> Grid:
    first = ordered[0]
    try:
        affine_lps = create_affine_matrix_from_attributes(
            image_position=first.position_mm.tolist(),
            image_orientation=first.orientation.tolist(),
            pixel_spacing=first.pixel_spacing_mm.tolist(),
            spacing_between_slices=spacing_mm,
            index_convention=("R", "D"),
        )
        grid = Grid(shape=(first.shape[1], first.shape[0], len(ordered)), affine=_LPS_TO_RAS @ affine_lps)
    except ValueError as error:
        expected = "positive spacings and image axes at right angles"
        raise UserError(folder, expected=expected, found=str(error), remedy=_EXPORT_AGAIN) from error
    places = [[0, 0, index] for index in range(len(ordered))]
    stated_mm = np.stack([one.position_mm for one in ordered]) @ _LPS_TO_RAS[:3, :3]
    if np.abs(grid.to_mm(np.array(places)) - stated_mm).max() > PLACE_TOLERANCE_MM:
        raise _irregular(ordered, folder)
    return grid


def _irregular(slices: Sequence[_Slice], folder: Path) -> UserError:
    return UserError(
        folder,
        expected=f"{len(slices)} slices evenly stacked along their normal",
        found=_describe_stack(slices),
        remedy="complete or clean the series; a scan with holes would put organs in the wrong place",
    )


def _describe_stack(slices: Sequence[_Slice]) -> str:
    steps_mm = np.diff(np.sort([one.position_mm @ slices[0].normal for one in slices]))
    usual_mm = float(np.median(steps_mm))
    if steps_mm.min() < PLACE_TOLERANCE_MM:
        return f"{int((steps_mm < PLACE_TOLERANCE_MM).sum())} slices at the place of another"
    if steps_mm.max() > 1.5 * usual_mm:
        return f"a gap of {steps_mm.max():.3g} mm where slices are {usual_mm:.3g} mm apart"
    if np.ptp(steps_mm) > PLACE_TOLERANCE_MM:
        return f"steps from {steps_mm.min():.3g} to {steps_mm.max():.3g} mm"
    return "slices that drift sideways or in step (a tilted gantry?)"


def _stack(ordered: Sequence[_Slice]) -> NDArray[np.int16] | NDArray[np.float32]:
    """HU [column, row, slice], decoded one slice at a time into the array returned."""
    hu: NDArray[np.int16] | NDArray[np.float32] = np.empty((len(ordered), *ordered[0].shape), dtype=np.int16)
    for index, one in enumerate(ordered):
        values = _read_hu(one)
        if hu.dtype == np.int16 and not _is_int16(values):
            hu = hu.astype(np.float32)
        hu[index] = values
    return hu.T


def _read_hu(one: _Slice) -> NDArray[np.float64]:
    """The slice's HU [row, column]."""
    with _refusing_damage(one.path):
        stored = pydicom.dcmread(one.path).pixel_array
        if stored.shape != one.shape:
            raise ValueError(f"an image of shape {stored.shape}")
        return np.asarray(stored * one.slope + one.intercept, dtype=np.float64)


def _is_int16(values: NDArray[np.float64]) -> bool:
    limits = np.iinfo(np.int16)
    return bool(
        values.min() >= limits.min and values.max() <= limits.max and np.array_equal(values, np.rint(values))
    )
