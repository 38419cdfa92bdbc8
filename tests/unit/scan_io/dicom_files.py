"""Small real DICOM series, written with pydicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PATIENT_NAME = "Doe^Jane"
PATIENT_ID = "SECRET-4711"

#: Five slices 3 mm apart, first pixel at LPS (-10, -20, 100 to 112).
FIVE = [(-10.0, -20.0, 100.0 + 3 * index) for index in range(5)]


def write_series(
    folder: Path,
    *,
    positions: Sequence[Sequence[float]],
    stored: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    orientation: Sequence[float] = AXIAL,
    rescale: Sequence[tuple[float, float]] | None = None,
    fields: Mapping[str, Any] | None = None,
    sop_class: UID = CTImageStorage,
) -> list[Path]:
    """One file for each of ``positions`` (LPS mm of the first pixel).

    ``stored`` [slice, row, column] holds the stored numbers (zeros by default, 3 rows
    and 4 columns, 2 mm between rows and 1.5 mm between columns). ``fields``
    replaces header values by keyword; a value of None removes the element.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((len(positions), 3, 4), dtype=np.uint16) if stored is None else stored
    first_name = names[0] if names else "000.dcm"
    series = {
        level: generate_uid(entropy_srcs=[folder.name, first_name, level])
        for level in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    }
    paths = []
    for index, position in enumerate(positions):
        path = folder / (names[index] if names else f"{index:03}.dcm")
        dataset = _slice(path, pixels[index], sop_class)
        slope, intercept = rescale[index] if rescale else (1, -1024)
        dataset.update(
            series | {"ImagePositionPatient": list(position), "ImageOrientationPatient": list(orientation)}
        )
        dataset.update({"RescaleSlope": slope, "RescaleIntercept": intercept})
        change(dataset, fields or {})
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def change(dataset: Dataset, fields: Mapping[str, Any]) -> None:
    """Set header values by keyword; None removes the element."""
    for keyword, value in fields.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def _slice(path: Path, pixels: np.ndarray, sop_class: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.parent.name, path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.update({"Modality": "CT", "PatientName": PATIENT_NAME, "PatientID": PATIENT_ID})
    dataset.update({"Rows": pixels.shape[0], "Columns": pixels.shape[1], "PixelSpacing": [2.0, 1.5]})
    dataset.update({"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "SamplesPerPixel": 1})
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset
