from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ct_attn.datasets.pancreas_ct import LABELS, MULTI_ORGAN_LABELS
from ct_attn.datasets.source import LabelFile, SourceCase
from ct_attn.errors import UserError
from ct_attn.preparation import convert
from ct_attn.preparation.convert import Job, prepare_case
from ct_attn.preparation.record import CaseRecord
from ct_attn.scan_io import nifti
from ct_attn.scan_io.options import ReadingOptions
from tests.downloads import LEFT_KIDNEY, PANCREAS, SPLEEN, patient, recoded, write_label, write_scan


@pytest.fixture
def job(tmp_path):
    """Patient 1 with both label files; the second one's pancreas is smaller and its spleen reaches over."""
    volume, mask = patient(1)
    write_scan(tmp_path / "in" / "scan.nii.gz", volume)
    write_label(tmp_path / "in" / "first.nii.gz", recoded(mask, {PANCREAS: 1}), volume.grid.affine)
    more = recoded(mask, {PANCREAS: 11, SPLEEN: 1, LEFT_KIDNEY: 3})
    places = np.argwhere(more == 11)
    more[tuple(places[:40].T)] = 0
    more[tuple(places[-40:].T)] = 1
    write_label(tmp_path / "in" / "second.nii.gz", more, volume.grid.affine)
    files = (("first.nii.gz", LABELS), ("second.nii.gz", MULTI_ORGAN_LABELS))
    labels = tuple(
        LabelFile(path=tmp_path / "in" / name, table=table, header_is_trusted=False) for name, table in files
    )
    case = SourceCase(case_id="c1", patient_id="p1", image=tmp_path / "in" / "scan.nii.gz", labels=labels)
    return Job(case=case, output=tmp_path / "out")


def test_where_labels_overlap_the_first_has_the_voxel(job):
    record = prepare_case(job)
    assert isinstance(record, CaseRecord)
    made, _ = nifti.read_mask(job.output / "labelsTr" / "c1.nii.gz")
    assert np.array_equal(made.labels, recoded(patient(1)[1], {organ: organ for organ in (1, 2, 3)}))
    assert 0.9 < record.agreement["pancreas"] < 1
    assert record.labelled_organs == ("pancreas", "spleen", "left_kidney")


def test_labels_of_different_patients_are_refused(job):
    volume, mask = patient(1)
    elsewhere = np.roll(recoded(mask, {PANCREAS: 11, SPLEEN: 1, LEFT_KIDNEY: 3}), 9, axis=0)
    write_label(job.case.labels[1].path, elsewhere, volume.grid.affine)
    reason = prepare_case(job)
    assert isinstance(reason, str)
    assert reason.startswith("the label: ")
    assert not list(job.output.rglob("*.nii.gz"))


def test_a_reason_holds_no_path_wherever_it_stood(job, monkeypatch):
    image = job.case.image

    def refuse(*arguments):
        raise UserError(f"{image}/1-1.dcm", expected=f"one of {image}", found=f"{image}/2", remedy="x")

    monkeypatch.setattr(convert, "read_scan", refuse)
    assert prepare_case(job) == "the scan: expected one of the scan, found the scan/2; x"


def test_what_was_done_to_the_scan_is_recorded_and_options_reach_the_reader(job, monkeypatch):
    heard = []

    def read(path, options, on_note):
        heard.append(options)
        on_note("one slice twice")
        return patient(1)[0]

    monkeypatch.setattr(convert, "read_scan", read)
    asked = replace(job, options=ReadingOptions(fix_tilt=True))
    record = prepare_case(asked)
    assert isinstance(record, CaseRecord)
    assert record.corrections == ("one slice twice",)
    assert heard == [asked.options]
    prepare_case(asked)
    assert len(heard) == 1  # done
    prepare_case(job)
    assert len(heard) == 2  # other options, other scan
