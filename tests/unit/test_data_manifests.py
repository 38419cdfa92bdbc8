"""The lists that are shipped hold what they say, and the command in the repository writes them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ct_attn.datasets.pancreas_ct import CASE_NUMBERS, WITHDRAWN, case_id
from ct_attn.manifest import choose_fold, read_manifest

FOLDER = Path(__file__).resolve().parents[2] / "data_manifests"
LISTS = sorted(FOLDER.glob("*.json"))


@pytest.fixture(params=LISTS, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_there_are_three_lists():
    assert [path.stem.removeprefix("pancreas_ct_") for path in LISTS] == [
        "4_fold", "5_fold", "paper_style_59_21",
    ]  # fmt: skip


def test_each_lists_the_80_cases_once_and_no_withdrawn_one(path):
    ids = [case.case_id for case in read_manifest(path).cases]
    assert sorted(ids) == [case_id(number) for number in CASE_NUMBERS]
    assert len(ids) == 80
    assert not {case_id(number) for number in WITHDRAWN} & set(ids)


def test_folds_are_disjoint_by_patient_and_by_digest(path):
    manifest = read_manifest(path)
    for fold in manifest.folds:
        training, validation = choose_fold(manifest, fold, path=path)
        for apart in (validation, manifest.test):
            assert not {case.patient_id for case in training} & {case.patient_id for case in apart}
            digests = {case.image_digest for case in training} & {case.image_digest for case in apart}
            assert digests <= {None}


def test_folds_are_as_large_as_their_names_say():
    sizes = {
        path.stem: (Counter(case.fold for case in manifest.training), len(manifest.test))
        for path, manifest in ((path, read_manifest(path)) for path in LISTS)
    }
    assert sizes == {
        "pancreas_ct_4_fold": ({0: 20, 1: 20, 2: 20, 3: 20}, 0),
        "pancreas_ct_5_fold": ({0: 16, 1: 16, 2: 16, 3: 16, 4: 16}, 0),
        "pancreas_ct_paper_style_59_21": ({0: 12, 1: 12, 2: 12, 3: 12, 4: 11}, 21),
    }


def test_the_command_writes_them_anew(tmp_path):
    subprocess.run([sys.executable, FOLDER / "make.py", tmp_path], check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in LISTS
    }
