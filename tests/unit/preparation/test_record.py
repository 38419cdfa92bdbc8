from __future__ import annotations

import numpy as np
import pytest

from ct_attn.manifest import file_digest
from ct_attn.preparation.quality import measure
from ct_attn.preparation.record import (
    CaseRecord,
    is_done,
    read_record,
    record_path,
    text_digest,
    voxel_digest,
    write_record,
)
from ct_attn.volume import Volume
from tests.downloads import patient


@pytest.fixture
def record(tmp_path):
    (tmp_path / "image").write_text("image")
    return CaseRecord(
        case_id="c1",
        patient_id="p1",
        settings=text_digest("settings"),
        scan=text_digest("scan"),
        scan_files=1,
        labels=(),
        corrections=("squeezed",),
        agreement={"pancreas": 0.9},
        labelled_organs=("pancreas",),
        facts=measure(*patient(1)),
        marks=(),
        voxels=voxel_digest(patient(1)[0]),
        outputs={"image": file_digest(tmp_path / "image")},
        versions={"ct_attn": "0"},
    )


def test_what_is_written_is_read_back(record, tmp_path):
    write_record(record, tmp_path)
    assert read_record(tmp_path, "c1") == record


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"case_id": "c1"}', "\xff"])
def test_a_torn_or_foreign_record_is_none(tmp_path, content):
    if content is not None:
        record_path(tmp_path, "c1").parent.mkdir()
        record_path(tmp_path, "c1").write_text(content, encoding="latin-1")
    assert read_record(tmp_path, "c1") is None


def test_a_case_is_done_while_its_files_are_as_they_were_written(record, tmp_path):
    assert is_done(record, tmp_path)
    (tmp_path / "image").write_text("other")
    assert not is_done(record, tmp_path)
    (tmp_path / "image").unlink()
    assert not is_done(record, tmp_path)


def test_the_digest_of_voxels_is_of_their_values_whatever_their_type_and_layout():
    volume, _ = patient(1)
    same = Volume(hu=np.asfortranarray(volume.hu).astype(np.float32), grid=volume.grid)
    assert voxel_digest(same) == voxel_digest(volume)
    other = volume.hu.copy()
    other[3, 4, 5] += 1
    assert voxel_digest(Volume(hu=other, grid=volume.grid)) != voxel_digest(volume)
