"""Which series of several is taken, and which syntaxes are read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from ct_attn.errors import UserError
from ct_attn.scan_io.dicom import read_series
from ct_attn.scan_io.options import ReadingOptions
from tests.unit.scan_io.dicom_files import FIVE, PATIENT_ID, write_series

TEN = [(0.0, 0.0, 2.0 * index) for index in range(30)]
LOCALISER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": 1, "SeriesDescription": "Doe"}


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{index}" for index in range(count)]


def scan(folder: Path, prefix: str, *, number: int, positions=TEN, **changes) -> str:
    """A series of its own in ``folder``; returns its UID."""
    fields = {"SeriesNumber": number, "SeriesDescription": "Doe^Jane"} | changes.pop("fields", {})
    paths = write_series(
        folder, positions=positions, names=named(prefix, len(positions)), fields=fields, **changes
    )
    return str(pydicom.dcmread(paths[0]).SeriesInstanceUID)


def refusal(folder: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_series(folder, ReadingOptions(**options))
    message = str(caught.value)
    assert PATIENT_ID not in message
    assert "Doe" not in message
    return message


@pytest.fixture
def three(tmp_path):
    """A localiser and two whole scans, the later one of 28 slices."""
    write_series(tmp_path, positions=FIVE[:1], names=["l"], fields=LOCALISER)
    scan(tmp_path, "a", number=4)
    scan(tmp_path, "b", number=3, positions=TEN[:28])
    return tmp_path


def test_several_scans_are_listed_with_number_kind_and_size_but_not_the_patient(three):
    message = refusal(three)
    assert "3 series: 1: CT Image Storage, CT, localiser, 1 files of 4 x 3; " in message
    assert "2: CT Image Storage, CT, axial, 28 files of 4 x 3; 3: CT Image Storage, CT, axial, 30 " in message
    assert "--series" in message


def test_a_number_of_the_list_or_a_uid_chooses(three):
    notes = []
    by_number = read_series(three, ReadingOptions(series="2"), notes.append)
    assert by_number.grid.shape[2] == 28
    assert notes == [
        "Of 3 series in the folder one was taken: CT Image Storage, CT, axial, 28 files of 4 x 3."
    ]
    uid = str(pydicom.dcmread(three / "a0").SeriesInstanceUID)
    assert read_series(three, ReadingOptions(series=uid)).grid.shape[2] == 30


@pytest.mark.parametrize("wanted", ["0", "4", "1.2.3", ""])
def test_a_series_that_is_not_there_is_refused_with_the_list(three, wanted):
    message = refusal(three, series=wanted)
    assert "the series that --series names" in message
    assert "3: CT" in message


def test_the_largest_axial_ct_is_taken_beside_what_cannot_be_the_scan(tmp_path):
    """A localiser, another modality, a coronal reformat, a test bolus at one place."""
    write_series(tmp_path, positions=FIVE[:1], names=["l"], fields=LOCALISER)
    scan(tmp_path, "mr", number=2, sop_class=MRImageStorage, fields={"Modality": "MR"})
    coronal = [(0.0, 2.0 * index, 0.0) for index in range(40)]
    scan(tmp_path, "coronal", number=3, positions=coronal, orientation=(1, 0, 0, 0, 0, -1))
    scan(tmp_path, "bolus", number=5, positions=[(0.0, 0.0, 30.0)] * 12)
    scan(tmp_path, "short", number=6, positions=TEN[:6])
    scan(tmp_path, "whole", number=9)
    notes = []
    assert read_series(tmp_path, on_note=notes.append).grid.shape[2] == 30
    assert len(notes) == 1
    scan(tmp_path, "rival", number=10, positions=TEN[:8])
    assert "expected one series, found 7 series" in refusal(tmp_path)


def test_a_chosen_series_that_is_no_ct_is_refused(tmp_path):
    scan(tmp_path, "mr", number=1, sop_class=MRImageStorage, fields={"Modality": "MR"})
    scan(tmp_path, "ct", number=2)
    assert "expected CT images, found MR Image Storage" in refusal(tmp_path, series="1")


def written_as(syntax: str, dataset: pydicom.Dataset) -> None:
    if syntax == JPEG2000Lossless:
        packed = io.BytesIO()
        Image.fromarray(dataset.pixel_array.astype(np.uint16)).save(packed, "JPEG2000", irreversible=False)
        dataset.PixelData = encapsulate([packed.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax in (RLELossless, JPEGLSLossless):
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_every_syntax_gives_the_same_hu(tmp_path, syntax):
    stored = np.random.default_rng(0).integers(0, 4096, (5, 32, 40)).astype(np.uint16)
    for path in write_series(tmp_path, positions=FIVE, stored=stored):
        dataset = pydicom.dcmread(path)
        written_as(syntax, dataset)
        if syntax == ExplicitVRBigEndian:
            pydicom.dcmwrite(path, dataset, little_endian=False, implicit_vr=False, enforce_file_format=True)
        else:
            dataset.save_as(path)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_series(tmp_path).hu, stored.T.astype(int) - 1024)
