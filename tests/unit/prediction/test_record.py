from __future__ import annotations

import os

import pytest

from ct_attn.prediction.record import (
    MASK,
    PREVIEW,
    FailureRecord,
    OutputFiles,
    input_facts,
    input_stamp,
    read_failure,
    read_record,
    settings_digest,
    write_json,
)


@pytest.fixture
def files(tmp_path):
    return OutputFiles(mask=tmp_path / "case.one.nii.gz")


def test_everything_of_a_scan_is_named_after_its_mask(files, tmp_path):
    assert files.name == "case.one"
    places = {
        files.mask: "case.one.nii.gz",
        files.record: "case.one.json",
        files.failure: "case.one.failed.json",
        files.of_kind(PREVIEW): "case.one.png",
        files.of_kind("probabilities/spleen"): "case.one_probabilities/spleen.nii.gz",
        files.of_kind("attention/level1_gate2"): "case.one_attention/level1_gate2.nii.gz",
    }
    for found, expected in places.items():
        assert found == tmp_path / expected
    assert files.of_kind(MASK) == files.mask
    assert files.mark not in places


def test_a_scan_is_known_by_what_its_files_hold(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    os.utime(tmp_path / "a", ns=(7, 7))
    digest, size, modified_ns = input_facts(tmp_path / "a")
    assert (size, modified_ns) == (5, 7) == input_stamp(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"12345")
    assert input_facts(tmp_path / "b")[0] == digest
    (tmp_path / "b").write_bytes(b"12346")
    assert input_facts(tmp_path / "b")[0] != digest


def test_of_a_folder_all_slices_count_and_hidden_files_do_not(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(bytes(10 * number))
        os.utime(tmp_path / f"{number}.dcm", ns=(number, number))
    before = input_facts(tmp_path)
    (tmp_path / ".listing").write_bytes(b"new")
    assert input_facts(tmp_path) == before
    assert before[1:] == (30, 2)


@pytest.mark.parametrize("text", [None, "", "{torn", '{"format": "another"}'])
def test_what_is_no_record_is_none(files, text):
    if text is not None:
        files.record.write_text(text)
        files.failure.write_text(text)
    assert read_record(files) is None
    assert read_failure(files) is None


def test_a_failure_is_read_as_it_was_written(files):
    failure = FailureRecord(cause="the file ends before its last slice", version="1")
    write_json(failure, files.failure)
    assert read_failure(files) == failure


def test_settings_are_the_same_in_any_order_and_others_when_any_differs():
    settings = {"inference": {"fast": False, "windows": "chosen"}, "organs": ["spleen"]}
    turned = {"organs": ["spleen"], "inference": {"windows": "chosen", "fast": False}}
    assert settings_digest(settings) == settings_digest(turned)
    assert settings_digest(settings) != settings_digest(settings | {"organs": ["spleen", "kidney"]})
