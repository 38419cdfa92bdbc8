"""Which of the series in a folder is the scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID

from ct_attn.errors import UserError
from ct_attn.scan_io.dicom_headers import is_ct, is_localiser, numbers
from ct_attn.scan_io.options import OnNote, ReadingOptions

Series = Sequence[pydicom.FileDataset]

#: The largest series is the scan when no other reaches over this share of its length:
#: test bolus and monitoring slices don't, another phase or reconstruction does.
_NO_RIVAL = 0.2

#: Codes that may be quoted; damage can make the field swallow its neighbours, the patient among them.
_MODALITIES = frozenset(
    ("CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "RF", "SC", "OT", "SEG", "SR", "PR", "KO", "REG")
)


def choose_series(headers: Series, folder: Path, options: ReadingOptions, on_note: OnNote) -> Series:
    """The headers of one CT series: the one asked for, the only one, or the largest without a rival.

    Raises :class:`UserError`, with a numbered list, when several could be meant, the one
    asked for isn't there, or the one left is no CT.
    """
    found = _in_series(headers)
    chosen = _asked_for(found, folder, options) if options.series is not None else _only_one(found, folder)
    _require_ct(chosen, folder)
    if len(found) > 1:
        on_note(f"Of {len(found)} series in the folder one was taken: {_describe(chosen)}.")
    return chosen


def _in_series(headers: Series) -> list[Series]:
    """By series number, then UID: the order a user's number counts in."""
    series: dict[str, list[pydicom.FileDataset]] = {}
    for header in headers:
        series.setdefault(str(header.SeriesInstanceUID), []).append(header)
    return sorted(series.values(), key=lambda one: (_series_number(one[0]), str(one[0].SeriesInstanceUID)))


def _series_number(header: pydicom.FileDataset) -> float:
    try:
        return float(numbers(header, "SeriesNumber", 1)[0])
    except ValueError:
        return np.inf


def _asked_for(found: Sequence[Series], folder: Path, options: ReadingOptions) -> Series:
    wanted = str(options.series).strip()
    for number, one in enumerate(found, start=1):
        if wanted in {str(number), str(one[0].SeriesInstanceUID)}:
            return one
    raise UserError(
        folder,
        expected="the series that --series names",
        found=_list(found),
        remedy="give its number in this list, or its UID",
    )


def _only_one(found: Sequence[Series], folder: Path) -> Series:
    if len(found) == 1:
        return found[0]
    lengths_mm = [_axial_length_mm(one) for one in found]
    largest = int(np.argmax(lengths_mm))
    rivals = [length for index, length in enumerate(lengths_mm) if index != largest]
    if lengths_mm[largest] <= 0 or max(rivals) > _NO_RIVAL * lengths_mm[largest]:
        raise UserError(
            folder,
            expected="one series",
            found=_list(found),
            remedy="choose one with --series and its number, or give each its own folder",
        )
    return found[largest]


def _axial_length_mm(one: Series) -> float:
    """From the first to the last slice along the body; -1 for what is no axial CT."""
    heights = [float(position[2]) for position in map(_axial_position, one) if position is not None]
    return float(np.ptp(heights)) if heights else -1.0


def _axial_position(header: pydicom.FileDataset) -> np.ndarray | None:
    if not is_ct(header) or is_localiser(header):
        return None
    try:
        across, down = numbers(header, "ImageOrientationPatient", 6).reshape(2, 3)
        position = numbers(header, "ImagePositionPatient", 3)
    except ValueError:
        return None
    return position if np.argmax(np.abs(np.cross(across, down))) == 2 else None


def _require_ct(one: Series, folder: Path) -> None:
    foreign = [header for header in one if not is_ct(header)]
    if foreign:
        raise UserError(
            folder,
            expected="CT images",
            found=_describe(foreign),
            remedy="name the folder of a CT series",
        )


def _list(found: Sequence[Series]) -> str:
    listed = "; ".join(f"{number}: {_describe(one)}" for number, one in enumerate(found, start=1))
    return f"{len(found)} series: {listed}"


def _describe(one: Series) -> str:
    """Such as ``CT Image Storage, CT, axial, 20 files of 512 x 512``; free text may name the patient."""
    first = one[0]
    sop_class = UID(str(first.SOPClassUID))
    modality = str(first.get("Modality") or "not stated")
    facts = [sop_class.name if sop_class.type else "unknown kind"]
    facts.append(modality if modality in _MODALITIES else "modality not stated")
    if any(is_localiser(header) for header in one):
        facts.append("localiser" if all(map(is_localiser, one)) else "with a localiser")
    if any(_axial_position(header) is not None for header in one):
        facts.append("axial")
    facts.append(f"{len(one)} files{_size(first)}")
    return ", ".join(facts)


def _size(header: pydicom.FileDataset) -> str:
    try:
        rows, columns = (int(numbers(header, keyword, 1)[0]) for keyword in ("Rows", "Columns"))
    except ValueError:
        return ""
    return f" of {columns} x {rows}"
