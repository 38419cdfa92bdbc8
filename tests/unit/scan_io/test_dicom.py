"""What a DICOM series is read as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, RLELossless

from ct_attn.scan_io.dicom import read_series
from ct_attn.scan_io.dicom_headers import read_headers
from tests.unit.scan_io.dicom_files import FIVE, write_series


def marked(count: int = 5, *, at: tuple[int, int, int]) -> np.ndarray:
    """Stored numbers [slice, row, column] of 1024 (0 HU), 1524 (500 HU) in one place."""
    stored = np.full((count, 3, 4), 1024, dtype=np.uint16)
    stored[at] = 1524
    return stored


def marked_place_mm(folder: Path) -> np.ndarray:
    volume = read_series(folder)
    voxels = np.argwhere(volume.hu == 500)
    assert len(voxels) == 1
    return volume.grid.to_mm(voxels[0])


def test_axial_series_comes_out_by_column_row_slice_in_ras_mm(tmp_path):
    write_series(tmp_path, positions=FIVE, stored=marked(at=(3, 1, 2)))

    volume = read_series(tmp_path)

    assert volume.hu.dtype == np.int16
    assert volume.grid.shape == (4, 3, 5)
    assert volume.grid.orientation == "LPS"
    assert volume.grid.spacing_mm == (1.5, 2.0, 3.0)
    assert volume.hu[2, 1, 3] == 500
    assert (volume.hu == 0).sum() == volume.hu.size - 1
    # LPS: x = -10 + 2 columns of 1.5, y = -20 + 1 row of 2, z = 100 + 3 slices of 3; RAS negates x and y
    assert marked_place_mm(tmp_path) == pytest.approx([7, 18, 109])


def test_names_that_sort_wrongly_do_not_matter(tmp_path):
    names = ["10", "2", "IM.dcm", "z.txt", "1.bak"]
    write_series(tmp_path, positions=FIVE, stored=marked(at=(4, 0, 0)), names=names)
    assert marked_place_mm(tmp_path) == pytest.approx([10, 20, 112])


def test_slices_in_falling_order_come_out_rising(tmp_path):
    write_series(tmp_path, positions=FIVE[::-1], stored=marked(at=(0, 0, 0)))
    assert read_series(tmp_path).hu[0, 0, 4] == 500
    assert marked_place_mm(tmp_path) == pytest.approx([10, 20, 112])


def test_oblique_series_keeps_every_voxel_at_its_place(tmp_path):
    cosine, sine = np.cos(np.radians(20)), np.sin(np.radians(20))
    columns, rows = np.array([cosine, sine, 0]), np.array([0.0, 0, -1])
    normal = np.cross(columns, rows)
    first = np.array([5.0, 6, 7])
    positions = [tuple(first + 2.5 * index * normal) for index in range(5)]
    write_series(tmp_path, positions=positions, stored=marked(at=(3, 2, 1)), orientation=(*columns, *rows))
    place_lps = first + 1 * 1.5 * columns + 2 * 2.0 * rows + 3 * 2.5 * normal
    assert marked_place_mm(tmp_path) == pytest.approx(place_lps * [-1, -1, 1])


def test_each_slice_is_rescaled_by_its_own_numbers(tmp_path):
    stored = np.full((5, 3, 4), 100, dtype=np.uint16)
    rescale = [(1, -1024), (2, -1000), (1, 0), (3, -300), (1, 5)]
    write_series(tmp_path, positions=FIVE, stored=stored, rescale=rescale)
    volume = read_series(tmp_path)
    assert volume.hu.dtype == np.int16
    assert volume.hu[0, 0].tolist() == [-924, -800, 100, 0, 105]


def test_a_fraction_in_a_late_slice_makes_the_volume_float(tmp_path):
    stored = np.full((5, 3, 4), 3, dtype=np.uint16)
    write_series(tmp_path, positions=FIVE, stored=stored, rescale=[*[(1, -1024)] * 4, (0.5, 0)])
    volume = read_series(tmp_path)
    assert volume.hu.dtype == np.float32
    assert volume.hu[0, 0].tolist() == [-1021, -1021, -1021, -1021, 1.5]


def test_values_beyond_int16_are_not_wrapped(tmp_path):
    stored = np.full((5, 3, 4), 60000, dtype=np.uint16)
    write_series(tmp_path, positions=FIVE, stored=stored)
    assert (read_series(tmp_path).hu == np.float32(58976)).all()


def test_signed_stored_numbers(tmp_path):
    stored = np.full((5, 3, 4), -2000, dtype=np.int16)
    write_series(tmp_path, positions=FIVE, stored=stored, rescale=[(1, 0)] * 5)
    assert (read_series(tmp_path).hu == -2000).all()


def test_run_length_compressed_series(tmp_path):
    paths = write_series(tmp_path, positions=FIVE, stored=marked(at=(3, 1, 2)))
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert marked_place_mm(tmp_path) == pytest.approx([7, 18, 109])


def empty_the_uids(paths: list[Path]) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        for level in (
            "SOPClassUID",
            "SOPInstanceUID",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "FrameOfReferenceUID",
        ):
            setattr(dataset, level, "")
        dataset.save_as(path)


def test_empty_uids_are_filled_in_memory_alike_each_time(tmp_path):
    paths = write_series(tmp_path, positions=FIVE, stored=marked(at=(3, 1, 2)))
    empty_the_uids(paths)
    before = [path.read_bytes() for path in paths]

    headers = read_headers(tmp_path)

    assert {header.SOPClassUID for header in headers} == {CTImageStorage}
    for level in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        values = {header.get(level) for header in headers}
        assert len(values) == 1
        assert values.pop().is_valid
        assert headers[0].get(level) == read_headers(tmp_path)[0].get(level)
    assert (
        len({headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID, headers[0].FrameOfReferenceUID}) == 3
    )
    assert [h.SOPInstanceUID for h in headers] == [h.file_meta.MediaStorageSOPInstanceUID for h in headers]
    assert marked_place_mm(tmp_path) == pytest.approx([7, 18, 109])
    assert [path.read_bytes() for path in paths] == before


def test_ct_is_recognised_by_modality_when_no_sop_class_is_stated(tmp_path):
    for path in write_series(tmp_path, positions=FIVE, stored=marked(at=(3, 1, 2))):
        dataset = pydicom.dcmread(path)
        del dataset.SOPClassUID, dataset.SOPInstanceUID
        del dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID
        pydicom.dcmwrite(path, dataset, enforce_file_format=False)
    assert len({header.SOPInstanceUID for header in read_headers(tmp_path)}) == 5
    assert marked_place_mm(tmp_path) == pytest.approx([7, 18, 109])


def test_other_files_and_folders_are_passed_over(tmp_path):
    write_series(tmp_path, positions=FIVE, stored=marked(at=(3, 1, 2)))
    (tmp_path / "notes.txt").write_text("DICM")
    (tmp_path / "empty.dcm").write_bytes(b"")
    write_series(tmp_path / "other", positions=FIVE)
    index = pydicom.FileDataset("", {}, file_meta=pydicom.dataset.FileMetaDataset(), preamble=b"\0" * 128)
    index.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    index.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    pydicom.dcmwrite(tmp_path / "DICOMDIR", index)
    assert read_series(tmp_path).grid.shape == (4, 3, 5)


def test_rounded_positions_are_taken(tmp_path):
    """Steps of 2/3 mm written with one decimal vary from 0.6 to 0.7; no slice is 0.1 mm off."""
    write_series(tmp_path, positions=[(0, 0, round(index * 2 / 3, 1)) for index in range(31)])
    assert read_series(tmp_path).grid.spacing_mm[2] == pytest.approx(2 / 3, abs=1e-3)


def test_one_slice_takes_its_depth_from_its_thickness(tmp_path):
    write_series(tmp_path, positions=FIVE[:1], fields={"SliceThickness": 5})
    assert read_series(tmp_path).grid.spacing_mm == (1.5, 2.0, 5.0)


def test_real_series_lies_where_its_headers_say(shared_data):
    folder = shared_data / "abdomen_ct_dicom"
    volume = read_series(folder)

    assert volume.grid.shape == (512, 512, 20)
    assert volume.grid.spacing_mm == pytest.approx((0.9765625, 0.9765625, 2.0))
    assert volume.grid.orientation == "LPS"
    assert volume.hu.dtype == np.int16
    assert volume.hu.min() == -1024  # air, stored as 0
    assert 1000 < volume.hu.max() < 3072  # bone

    headers = [pydicom.dcmread(path) for path in folder.iterdir()]
    headers.sort(key=lambda header: header.ImagePositionPatient[2])
    for k in (0, 7, 19):
        header = headers[k]
        row, column = 300, 200
        across, down = np.array(header.ImageOrientationPatient).reshape(2, 3)
        lps = header.ImagePositionPatient + column * 0.9765625 * across + row * 0.9765625 * down
        assert volume.grid.to_mm(np.array([column, row, k])) == pytest.approx(lps * np.array([-1, -1, 1]))
        assert volume.hu[column, row, k] == int(header.pixel_array[row, column]) - 1024
