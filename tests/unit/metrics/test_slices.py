"""Scores of axial slices."""

from __future__ import annotations

import csv
from dataclasses import fields
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.labels import DISK_SCHEME, ORGANS, PAPER_SCHEME
from ct_attn.metrics import State, score_case
from ct_attn.metrics.slices import SliceScore, _blocks, count_slices, slice_positions_mm, slice_scores
from ct_attn.report.score_files import write_slices_csv
from ct_attn.volume import Grid, Mask

RAS = np.array([[0.8, 0, 0, -10], [0, 0.8, 0, -20], [0, 0, 3.0, -100], [0, 0, 0, 1]])


def scored(truth, predicted, affine=RAS, *, labelled=ORGANS, schemes=(DISK_SCHEME, DISK_SCHEME), **options):
    grid = Grid(shape=truth.shape, affine=affine)
    counts = count_slices(
        Mask(labels=truth, grid=grid),
        Mask(labels=predicted, grid=grid),
        case_id="a",
        truth_scheme=schemes[0],
        predicted_scheme=schemes[1],
        labelled_organs=labelled,
    )
    return list(slice_scores(counts, **options))


def drawn(seed, shape=(5, 4, 6), code_bound=6):
    """Two masks, some of whose slices and codes are empty."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, code_bound, (2, *shape), dtype=np.uint8) * (rng.random((2, *shape)) < 0.4)
    masks[:, :, :, rng.integers(shape[2])] = 0
    return masks[0].astype(np.uint8), masks[1].astype(np.uint8)


@given(st.integers(0, 2**16), st.sampled_from([(DISK_SCHEME, PAPER_SCHEME), (DISK_SCHEME, DISK_SCHEME)]))
def test_a_slice_scores_what_a_case_of_that_slice_alone_scores(seed, schemes):
    truth, predicted = drawn(seed, code_bound=5 if schemes[1] is DISK_SCHEME else 4)
    found = scored(truth, predicted, schemes=schemes, labelled=ORGANS[:3])
    for k in range(truth.shape[2]):
        grid = Grid(shape=(5, 4, 1), affine=RAS)
        alone = score_case(
            Mask(labels=truth[:, :, k : k + 1], grid=grid),
            Mask(labels=predicted[:, :, k : k + 1], grid=grid),
            case_id="a",
            truth_scheme=schemes[0],
            predicted_scheme=schemes[1],
            labelled_organs=ORGANS[:3],
        )
        of_slice = [score for score in found if score.slice == k]
        assert [score.organ for score in of_slice] == [score.organ for score in alone]
        for one, other in zip(of_slice, alone, strict=True):
            for name in ("state", "dsc", "jaccard", "precision", "recall", "accuracy"):
                assert getattr(one, name) == getattr(other, name), name
            if other.truth_ml is not None:
                assert one.truth_mm2 * 3 / 1000 == pytest.approx(other.truth_ml)
                assert one.predicted_mm2 * 3 / 1000 == pytest.approx(other.predicted_ml)


@given(st.integers(0, 2**16), st.permutations([0, 1, 2]), st.booleans())
def test_however_axes_are_stored_the_slices_are_the_same(seed, order, fortran):
    masks = drawn(seed)
    expected = scored(*masks)
    affine = RAS.copy()
    affine[:, :3] = RAS[:, order]
    stored = [np.asarray(mask.transpose(order), order="F" if fortran else "C") for mask in masks]
    assert scored(*stored, affine=affine) == expected


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("memory", ["C", "F"])
def test_a_mask_of_many_blocks_is_counted_like_one_of_one(monkeypatch, order, memory):
    masks = drawn(3)
    whole = scored(*masks)
    monkeypatch.setattr("ct_attn.metrics.slices._BLOCK_VOXELS", 30)
    affine = RAS.copy()
    affine[:, :3] = RAS[:, order]
    stored = [np.asarray(mask.transpose(order), order=memory) for mask in masks]
    assert len(list(_blocks(stored[0]))) >= 4
    assert scored(*stored, affine=affine) == whole


def test_what_is_in_neither_mask_is_no_score_but_accuracy_unless_it_is_to_count():
    truth = np.zeros((4, 4, 3), dtype=np.uint8)
    truth[1:3, 1:3, 1] = 2
    predicted = np.zeros_like(truth)
    predicted[1:3, 1, 1:] = 2
    spleen = [score for score in scored(truth, predicted) if score.organ == "spleen"]
    assert [score.state for score in spleen] == [State.BOTH_EMPTY, State.SCORED, State.SPURIOUS]
    assert [score.dsc for score in spleen] == [None, 4 / 6, 0.0]
    assert [score.jaccard for score in spleen] == [None, 2 / 4, 0.0]
    assert [score.precision for score in spleen] == [None, 1.0, 0.0]
    assert [score.recall for score in spleen] == [None, 0.5, None]
    assert [score.accuracy for score in spleen] == [1.0, 14 / 16, 14 / 16]
    counted = [score for score in scored(truth, predicted, count_empty=True) if score.organ == "spleen"]
    assert (counted[0].dsc, counted[0].jaccard, counted[0].precision) == (1.0, 1.0, None)
    assert counted[1:] == spleen[1:]


def test_an_organ_that_the_case_does_not_label_has_no_number():
    masks = drawn(1)
    kidneys = [score for score in scored(*masks, labelled=("spleen",)) if score.organ == "left_kidney"]
    assert {score.state for score in kidneys} == {State.NOT_LABELLED}
    numbers = ("dsc", "jaccard", "precision", "recall", "accuracy", "truth_mm2", "predicted_mm2")
    assert all(getattr(score, name) is None for score in kidneys for name in numbers)


def test_positions_are_the_coordinate_s_and_in_a_tilted_scan_along_the_normal():
    straight = Grid(shape=(5, 4, 3), affine=RAS)
    assert slice_positions_mm(straight).tolist() == [-100, -97, -94]
    downwards = Grid(shape=(5, 4, 3), affine=RAS @ np.diag([1.0, 1, -1, 1]))
    assert slice_positions_mm(downwards).tolist() == [-100, -103, -106]
    sheared = RAS.copy()
    sheared[1, 2] = 1.0  # a tilted gantry: the table moves along S, the slices keep their planes
    assert slice_positions_mm(Grid(shape=(5, 4, 3), affine=sheared)).tolist() == [-100, -97, -94]
    angle = np.radians(20)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    steps = np.diff(slice_positions_mm(Grid(shape=(5, 4, 3), affine=tilt @ RAS)))
    assert steps == pytest.approx(3.0)


def test_masks_on_different_grids_are_refused():
    labels = np.zeros((2, 2, 2), dtype=np.uint8)
    masks = [Mask(labels=labels, grid=Grid(shape=(2, 2, 2), affine=affine)) for affine in (np.eye(4), RAS)]
    with pytest.raises(ValueError, match="a: truth is on"):
        count_slices(
            *masks, case_id="a", truth_scheme=DISK_SCHEME, predicted_scheme=DISK_SCHEME,
            labelled_organs=ORGANS,
        )  # fmt: skip


def test_the_file_has_a_line_per_case_organ_and_slice_and_leaves_empty_what_is_not_defined(tmp_path):
    truth, predicted = drawn(5)
    grid = Grid(shape=truth.shape, affine=RAS)
    counts = count_slices(
        Mask(labels=truth, grid=grid), Mask(labels=predicted, grid=grid), case_id="a",
        truth_scheme=DISK_SCHEME, predicted_scheme=DISK_SCHEME, labelled_organs=ORGANS,
    )  # fmt: skip
    write_slices_csv(tmp_path / "slices.csv", [counts, counts])
    with (tmp_path / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in fields(SliceScore)]
    expected = list(slice_scores(counts)) * 2
    assert len(rows) == len(expected) == 2 * 4 * 6
    for row, score in zip(rows, expected, strict=True):
        assert (row["organ"], int(row["slice"]), row["state"]) == (score.organ, score.slice, score.state)
        assert float(row["position_mm"]) == score.position_mm
        assert (float(row["dsc"]) if row["dsc"] else None) == pytest.approx(score.dsc, abs=1e-5)
