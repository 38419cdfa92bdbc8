from __future__ import annotations

import pytest

from ct_attn.datasets.pancreas_ct import CASE_NUMBERS, find_pancreas_ct
from ct_attn.datasets.pancreas_ct_splits import SPLITS, draw_split
from ct_attn.errors import UserError


@pytest.fixture
def download(tmp_path):
    """Empty files by the right names: what is found goes by names alone."""
    (tmp_path / "labels").mkdir()
    for number in (1, 2, 10):
        series = tmp_path / "images" / "Pancreas-CT" / f"PANCREAS_{number:04d}" / "study" / "series"
        series.mkdir(parents=True)
        (series / "1-001.dcm").touch()
        (tmp_path / "labels" / f"label{number:04d}.nii.gz").touch()
    return tmp_path


def found(download, **more):
    return find_pancreas_ct(download / "images", download / "labels", **more)


def test_cases_are_paired_by_number(download):
    (download / "labels" / "label0002.nii.gz").unlink()
    data = found(download)
    assert [(case.case_id, case.image.parents[1].name, case.labels[0].path.name) for case in data.cases] == [
        ("pancreas_0001", "PANCREAS_0001", "label0001.nii.gz"),
        ("pancreas_0010", "PANCREAS_0010", "label0010.nii.gz"),
    ]
    assert "scans without a label: 2" in data.notices
    assert not data.cases[0].labels[0].header_is_trusted


def test_several_series_refuse_a_case(download):
    second = download / "images" / "Pancreas-CT" / "PANCREAS_0002" / "study" / "another"
    second.mkdir()
    (second / "1-001.dcm").touch()
    data = found(download)
    assert list(data.refused) == ["pancreas_0002"]
    assert "found 2" in data.refused["pancreas_0002"]
    assert len(data.cases) == 2


def test_a_scan_converted_before_is_taken_too(download):
    (download / "images" / "PANCREAS_0003.nii.gz").touch()
    (download / "labels" / "label0003.nii.gz").touch()
    assert [case.image.name for case in found(download).cases][2] == "PANCREAS_0003.nii.gz"


def test_an_archive_unpacked_into_its_own_folder_is_found(download):
    inner = download / "outer" / "TCIA_pancreas_labels-02-05-2017"
    inner.parent.mkdir()
    (download / "labels").rename(inner)
    (inner / "readme.nii").touch()
    data = find_pancreas_ct(download / "images", download / "outer")
    assert len(data.cases) == 3
    assert "label files that are not named label0001.nii.gz, left out: readme.nii" in data.notices


def test_multi_organ_labels_join_by_number_and_are_cited(download):
    folder = download / "label_tcia_multiorgan"
    folder.mkdir()
    for number in (10, 25, 44):
        (folder / f"label{number:04d}.nii.gz").touch()
    data = found(download, multi_organ=folder)
    assert [len(case.labels) for case in data.cases] == [1, 1, 2]
    assert "multi-organ labels without a case: 44" in data.notices
    assert "multi-organ labels for 1 cases" in data.notices
    assert "zenodo.1169361" in data.source


def test_no_case_at_all_is_one_line(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="found scans none, labels none"):
        found(tmp_path)


def test_there_are_80_cases():
    assert len(CASE_NUMBERS) == 80
    assert {25, 70}.isdisjoint(CASE_NUMBERS)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_holds_every_case_once(name):
    split = draw_split(name)
    assert len(split.folds) + len(split.test) == 80
    assert not split.test & set(split.folds)
    assert draw_split(name, seed=1).folds != split.folds
