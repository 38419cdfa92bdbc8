from __future__ import annotations

import fcntl

import pytest

from ct_attn.datasets.btcv import find_btcv
from ct_attn.errors import UserError
from ct_attn.preparation.convert import Job, prepare_case
from ct_attn.prepare import HowToPrepare, prepare
from tests import downloads

HOW = HowToPrepare(folds={"btcv_0001": 0, "btcv_0002": 1})


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    return find_btcv(downloads.make_btcv(tmp_path_factory.mktemp("btcv")))


def test_a_case_refused_now_loses_what_it_was_before_and_the_manifest_goes_first(download, tmp_path, silent):
    made = prepare(download, tmp_path / "out", HOW, progress=silent)
    assert made.manifest is not None
    root = downloads.make_btcv(tmp_path)
    broken = find_btcv(root)
    label = broken.cases[0].labels[0].path
    label.write_bytes(label.read_bytes()[:500])
    reason = prepare_case(Job(case=broken.cases[0], output=tmp_path / "out"))
    assert isinstance(reason, str)
    assert reason.startswith("the label: expected")
    assert not made.manifest.exists()
    assert not list((tmp_path / "out").rglob("*btcv_0001*"))
    assert len(list((tmp_path / "out").rglob("*btcv_0002*"))) == 4


def test_two_runs_in_one_folder_are_refused(download, tmp_path, silent):
    prepare(download, tmp_path / "out", HOW, progress=silent)
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="one at work"):
            prepare(download, tmp_path / "out", HOW, progress=silent)


def test_leftovers_of_a_killed_run_go(download, tmp_path, silent):
    (tmp_path / "out").mkdir()
    prepare(download, tmp_path / "out", HOW, progress=silent)
    leftover = tmp_path / "out" / "imagesTr" / ".partial-123-btcv_0001.nii.gz"
    leftover.write_text("half")
    prepare(download, tmp_path / "out", HOW, progress=silent)
    assert not leftover.exists()


def test_another_data_set_does_not_go_into_the_same_folder(download, tmp_path, silent):
    from dataclasses import replace

    prepare(download, tmp_path / "out", HOW, progress=silent)
    with pytest.raises(UserError, match="something else in it"):
        prepare(replace(download, name="other"), tmp_path / "out", HOW, progress=silent)


def test_test_cases_have_no_fold(download, tmp_path, silent):
    how = HowToPrepare(folds={"btcv_0001": 0}, test={"btcv_0002"})
    made = prepare(download, tmp_path / "out", how, progress=silent)
    assert [row.part for row in made.rows] == ["fold 0", "test"]
