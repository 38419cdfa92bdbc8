"""The cohort on disk."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from ct_attn.datasets.phantom.cohort import CohortConfig, make_cohort
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME
from ct_attn.manifest import choose_fold, file_digest, read_manifest
from ct_attn.scan_io import nifti
from tests.cohorts import COARSE


def bytes_below(folder):
    """All files; trainings of other tests keep their prepared cases in a hidden folder beside."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".")}


def test_the_manifest_lists_every_file_with_its_digest(tiny_manifest):
    manifest = read_manifest(tiny_manifest)
    assert [case.fold for case in manifest.training] == [0, 1, 0, 1]
    assert len(manifest.test) == 1
    for case in manifest.cases:
        assert file_digest(tiny_manifest.parent / case.image) == case.image_digest
        assert file_digest(tiny_manifest.parent / case.label) == case.label_digest
    listed = {name for case in manifest.cases for name in (case.image, case.label)}
    assert set(bytes_below(tiny_manifest.parent)) == listed | {"manifest.json"}
    assert [len(side) for side in choose_fold(manifest, 0, path=tiny_manifest)] == [2, 2]


def test_labels_lie_on_their_scans_and_hold_all_four_organs(tiny_manifest):
    for case in read_manifest(tiny_manifest).cases:
        label, scheme = nifti.read_mask(tiny_manifest.parent / case.label)
        assert label.grid.is_same_as(nifti.read_grid(tiny_manifest.parent / case.image))
        assert scheme == DISK_SCHEME
        assert set(np.unique(label.labels)) == {0, 1, 2, 3, 4}
        assert nib.load(tiny_manifest.parent / case.image).header["sform_code"] == 1


def test_the_same_seed_gives_the_same_bytes_however_many_processes_draw(tmp_path):
    config = CohortConfig(n_training=2, n_test=1, n_folds=2, seed=8, phantom=COARSE)
    done = []
    make_cohort(config, tmp_path / "one", on_case=lambda count, total: done.append((count, total)))
    make_cohort(config, tmp_path / "two", jobs=2)
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert bytes_below(tmp_path / "one") == bytes_below(tmp_path / "two")


def test_no_two_cases_are_drawn_from_one_seed(tiny_manifest):
    digests = [case.image_digest for case in read_manifest(tiny_manifest).cases]
    assert len(set(digests)) == len(digests)


def test_a_cohort_is_not_overwritten(tiny_manifest):
    before = bytes_below(tiny_manifest.parent)
    with pytest.raises(UserError, match="another -o"):
        make_cohort(CohortConfig(n_training=2, n_folds=2, phantom=COARSE), tiny_manifest.parent)
    assert bytes_below(tiny_manifest.parent) == before


@pytest.mark.parametrize(
    "numbers", [{"n_training": 3}, {"n_training": 4, "n_folds": 1}, {"n_training": 4, "n_test": -1}]
)
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(ValueError, match=r"folds|test cases"):
        CohortConfig(**numbers)
