"""What is refused of DICOM, and that no refusal names the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    JPEGLosslessSV1,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from ct_attn.errors import UserError
from ct_attn.scan_io import dicom_pixels
from ct_attn.scan_io.dicom import read_series
from ct_attn.scan_io.dicom_headers import read_headers
from ct_attn.scan_io.identity import Identity, read_identity
from ct_attn.scan_io.options import AS_IT_IS, ReadingOptions
from tests.unit.scan_io.dicom_files import FIVE, PATIENT_ID, PATIENT_NAME, write_series


def refusal(folder: Path, options: ReadingOptions = AS_IT_IS) -> str:
    with pytest.raises(UserError) as caught:
        read_series(folder, options)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert PATIENT_ID not in message
    assert "Doe" not in message
    return message


def test_a_folder_without_dicom_is_refused(tmp_path):
    assert "no DICOM image" in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "no DICOM image" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("sop_class", "modality", "named"),
    [
        (MRImageStorage, "MR", "MR Image Storage, MR, 5 files of 4 x 3"),
        (CTImageStorage, "PT", "CT Image Storage, PT, "),
        (SecondaryCaptureImageStorage, "CT", "Secondary Capture Image Storage"),
        (EnhancedCTImageStorage, "CT", "Enhanced CT Image Storage"),
    ],
)
def test_what_is_not_plain_ct_is_refused(tmp_path, sop_class, modality, named):
    write_series(tmp_path, positions=FIVE, sop_class=sop_class, fields={"Modality": modality})
    message = refusal(tmp_path)
    assert "expected CT images" in message
    assert named in message


def test_a_missing_slice_is_refused(tmp_path):
    write_series(tmp_path, positions=FIVE[:2] + FIVE[3:])
    assert "a gap of 6 mm where slices are 3 mm apart" in refusal(tmp_path)


def test_a_doubled_slice_with_other_pixels_is_refused(tmp_path):
    stored = np.zeros((6, 3, 4), dtype=np.uint16)
    stored[5, 1, 1] = 1
    write_series(tmp_path, positions=[*FIVE, FIVE[2]], stored=stored)
    assert "1 slices at the place of another, with other pixels" in refusal(tmp_path)


def test_a_slice_beside_another_is_refused_even_when_asked_to_fix(tmp_path):
    write_series(tmp_path, positions=[*FIVE, (-40, -20, 106)])
    asked = ReadingOptions(fix_spacing=True, fix_tilt=True)
    assert "1 slices in the plane of another" in refusal(tmp_path, asked)


def test_a_localiser_among_the_slices_is_refused_and_named(tmp_path):
    write_series(tmp_path, positions=FIVE, fields={"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]})
    path = tmp_path / "002.dcm"
    dataset = pydicom.dcmread(path)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.save_as(path)
    assert "1 of them a localiser" in refusal(tmp_path)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.save_as(path)
    assert "share one orientation" in refusal(tmp_path)


def test_values_that_are_no_hu_by_their_own_word_are_refused(tmp_path):
    write_series(tmp_path, positions=FIVE, fields={"RescaleType": "Z_EFF"})
    assert "RescaleType other than HU" in refusal(tmp_path)
    assert read_series(tmp_path, ReadingOptions(rescale=(1, 0))).hu.max() == -1024


def test_uneven_steps_are_refused(tmp_path):
    write_series(tmp_path, positions=[*FIVE[:4], (-10, -20, 112.5)])
    assert "steps from 3 to 3.5 mm" in refusal(tmp_path)


def test_a_slight_tilt_is_refused_though_highdicom_takes_it(tmp_path):
    """At 1 degree a stack of 40 slices of 3 mm ends 2 mm off."""
    drift = 3 * np.tan(np.radians(1))
    write_series(tmp_path, positions=[(0, drift * index, 3.0 * index) for index in range(40)])
    assert "drift sideways" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "orientation"),
        ({"PixelSpacing": [2.0, 1.6]}, "pixel spacing"),
        ({"FrameOfReferenceUID": "1.2.3"}, "frame of reference"),
        ({"Rows": 2}, "image size"),
    ],
)
def test_a_foreign_slice_is_refused(tmp_path, fields, what):
    path = write_series(tmp_path, positions=FIVE)[2]
    dataset = pydicom.dcmread(path)
    dataset.update(fields)
    dataset.save_as(path)
    message = refusal(tmp_path)
    assert f"share one {what}" in message
    assert "1 of 5" in message


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"ImagePositionPatient": None}, "ImagePositionPatient"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "no 6 finite number(s) in ImageOrientationPatient"),
        ({"PixelSpacing": None}, "PixelSpacing"),
        ({"RescaleIntercept": None}, "RescaleIntercept"),
        ({"RescaleSlope": ""}, "no 1 finite number(s) in RescaleSlope"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel other than 1"),
        ({"NumberOfFrames": 2}, "NumberOfFrames other than 1"),
        ({"PixelSpacing": [0.0, 1.0]}, "spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "expected"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]}, "expected"),
    ],
)
def test_a_header_that_does_not_say_where_or_what_is_refused(tmp_path, fields, complaint):
    write_series(tmp_path, positions=FIVE, fields=fields)
    assert complaint in refusal(tmp_path)


def test_one_slice_of_unknown_thickness_is_refused(tmp_path):
    write_series(tmp_path, positions=FIVE[:1])
    assert "positive spacings" in refusal(tmp_path)


def test_more_voxels_than_allowed_are_refused_from_the_headers(tmp_path):
    write_series(tmp_path, positions=FIVE, fields={"Rows": 60000, "Columns": 60000})
    assert "60000 x 60000 x 5 in the header" in refusal(tmp_path)


def test_a_deflated_file_that_unpacks_to_far_more_is_refused(tmp_path):
    path = write_series(tmp_path, positions=FIVE[:1])[0]
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.add_new((0x0029, 0x1010), "OB", bytes(70 << 20))
    dataset.save_as(path)
    assert path.stat().st_size < 1 << 20
    assert "damaged one (ValueError)" in refusal(tmp_path)
    assert read_identity(tmp_path) == Identity()  # not unpacked for its patient's name either


def test_pixels_that_no_decoder_reads_are_refused_by_name(tmp_path, monkeypatch):
    for path in write_series(tmp_path, positions=FIVE):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.save_as(path)
    decoder = dicom_pixels.get_decoder(JPEGLosslessSV1)
    monkeypatch.setattr(decoder, "_available", {})  # whatever happens to be installed
    message = refusal(tmp_path)
    assert "JPEG Lossless" in message
    assert "1.2.840.10008.1.2.4.70" in message


def test_a_file_truncated_in_its_pixels_is_refused_by_its_place(tmp_path):
    path = write_series(tmp_path, positions=FIVE)[2]
    path.write_bytes(path.read_bytes()[:-1])
    message = refusal(tmp_path)
    assert "file 3 of 5 by name" in message
    assert "damaged" in message


@pytest.mark.parametrize("part", [0.9, 0.5, 0.25])
def test_a_file_truncated_in_its_header_is_refused(tmp_path, part):
    path = write_series(tmp_path, positions=FIVE)[2]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refusal(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_whatever_bytes_change_the_outcome_is_a_volume_or_a_refusal(tmp_path, capfd, caplog):
    path = write_series(tmp_path, positions=FIVE)[2]
    whole = path.read_bytes()
    random = np.random.default_rng(7)
    refusals = []
    for _ in range(150):
        changed = bytearray(whole)
        for place in random.integers(132, len(whole), size=4):
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        try:
            read_series(tmp_path)
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 30
    assert PATIENT_ID not in caplog.text + "".join([*refusals, *capfd.readouterr()])


def test_the_patient_named_in_these_files_is_really_there(tmp_path):
    """Guards ``refusal``: its files do name a patient."""
    write_series(tmp_path, positions=FIVE)
    assert read_headers(tmp_path)[0].PatientName == PATIENT_NAME
    assert read_headers(tmp_path)[0].PatientID == PATIENT_ID


def test_a_damaged_slice_is_named_by_its_number_not_by_its_name(tmp_path):
    write_series(tmp_path, positions=FIVE, names=[f"Doe_Jane_{index}.dcm" for index in range(5)])
    (tmp_path / ".hidden").touch()
    path = tmp_path / "Doe_Jane_2.dcm"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="file 3 of 6 by name: expected a whole DICOM file") as refused:
        read_series(tmp_path)
    assert "Doe" not in str(refused.value)
