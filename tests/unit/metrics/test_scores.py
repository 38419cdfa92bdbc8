from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ct_attn.labels import DISK_SCHEME, ORGANS, PAPER_SCHEME, LabelScheme
from ct_attn.metrics.scores import (
    CaseScore,
    ScoreOptions,
    State,
    SurfaceConvention,
    score_case,
    score_structure,
)
from ct_attn.volume import Grid, Mask

SHAPE = (20, 16, 10)
GRID = Grid(shape=SHAPE, affine=np.diag([1.0, 1.0, 2.0, 1.0]))  # a voxel is 2 mm3
EMPTY = np.zeros(SHAPE, dtype=bool)
VOLUMES = ("truth_ml", "predicted_ml", "volume_difference_ml", "volume_difference_percent")
SURFACE_DSC = ("surface_dsc_1mm", "surface_dsc_2mm", "surface_dsc_3mm")
NUMBERS = tuple(field.name for field in dataclasses.fields(CaseScore))[3:]


def box(start, stop):
    mask = EMPTY.copy()
    mask[tuple(map(slice, start, stop))] = True
    return mask


def label_map(**boxes):
    """A Mask in the disk scheme: an organ's name and its box (start, stop)."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for organ, (start, stop) in boxes.items():
        labels[box(start, stop)] = DISK_SCHEME.codes[organ]
    return Mask(labels=labels, grid=GRID)


def score(truth, predicted, truth_scheme=DISK_SCHEME, predicted_scheme=DISK_SCHEME, labelled=ORGANS):
    scores = score_case(
        truth,
        predicted,
        case_id="one",
        truth_scheme=truth_scheme,
        predicted_scheme=predicted_scheme,
        labelled_organs=labelled,
    )
    return {score.organ: score for score in scores}


def structure(truth, predicted, grid=GRID, **options):
    return score_structure(
        truth, predicted, grid, case_id="one", organ="spleen", options=ScoreOptions(**options)
    )


def numbers(score):
    return {name: getattr(score, name) for name in NUMBERS}


CUBE = box((5, 5, 2), (15, 11, 7))  # 10 x 6 x 5 voxels
SHIFTED = box((7, 5, 2), (17, 11, 7))  # 2 mm further along i: 240 of 300 voxels in common


def test_scored():
    found = structure(CUBE, SHIFTED)
    assert (found.case_id, found.organ, found.state) == ("one", "spleen", State.SCORED)
    assert (found.dsc, found.jaccard, found.precision, found.recall) == (0.8, 240 / 360, 0.8, 0.8)
    assert (found.truth_ml, found.predicted_ml) == (0.6, 0.6)
    assert found.hd95_mm == 2
    assert found.hd_mm == found.centroid_mm == 2
    assert found.s2s_mm == pytest.approx(found.directed_mean_mm)
    assert 0 < found.s2s_mm < 1
    assert found.surface_dsc_2mm == found.surface_dsc_3mm == 1 > found.surface_dsc_1mm > 0
    assert found.accuracy == 1 - 120 / 3200
    assert found.volume_difference_ml == found.volume_difference_percent == 0


def test_a_larger_prediction_has_a_positive_volume_difference():
    found = structure(CUBE, CUBE | SHIFTED)  # 60 voxels of 2 mm3 more than 300
    assert (found.volume_difference_ml, found.volume_difference_percent) == (pytest.approx(0.12), 20)
    assert structure(CUBE | SHIFTED, CUBE).volume_difference_ml == pytest.approx(-0.12)
    assert found.centroid_mm == pytest.approx(1)


def test_each_convention_gives_its_own_distances():
    """Off by 2 mm along i: whole slices by contour, boundary voxels, surface elements."""
    area, voxel, contour = (structure(CUBE, SHIFTED, surface=one) for one in SurfaceConvention)
    assert len({one.s2s_mm for one in (area, voxel, contour)}) == 3
    assert (area.hd_mm, voxel.hd_mm, contour.hd_mm) == (2, 2, 2)
    assert (contour.hd95_mm, contour.surface_dsc_2mm) == (None, None)
    assert (
        (area.dsc, area.centroid_mm) == (voxel.dsc, voxel.centroid_mm) == (contour.dsc, contour.centroid_mm)
    )


def test_contours_are_those_of_axial_slices_however_the_scan_is_stored():
    tall = box((5, 5, 2), (9, 11, 7)), box((6, 5, 3), (10, 11, 7))
    straight = structure(*tall, surface=SurfaceConvention.CONTOUR)
    affine = GRID.affine[:, [2, 0, 1, 3]]
    turned = Grid(shape=tuple(np.array(SHAPE)[[2, 0, 1]]), affine=affine)
    assert turned.orientation == "SRA"
    again = structure(*(m.transpose(2, 0, 1) for m in tall), turned, surface=SurfaceConvention.CONTOUR)
    assert numbers(again) == pytest.approx(numbers(straight))
    assert straight.hd_mm == 1


def test_structures_on_different_slices_have_no_contour_distance():
    found = structure(box((5, 5, 2), (9, 9, 4)), box((5, 5, 5), (9, 9, 8)), surface=SurfaceConvention.CONTOUR)
    assert (found.state, found.s2s_mm, found.hd_mm) == (State.SCORED, None, None)
    assert found.centroid_mm == 7


def test_both_empty_counts_as_1_only_when_asked():
    found = structure(EMPTY, EMPTY, count_empty=True)
    assert (found.state, found.dsc, found.jaccard, found.surface_dsc_2mm) == (State.BOTH_EMPTY, 1, 1, 1)
    assert (found.precision, found.s2s_mm) == (None, None)
    assert structure(EMPTY, EMPTY).dsc is None


def test_hd95_forgives_a_speck():
    found = structure(CUBE, CUBE | box((1, 1, 8), (2, 2, 9)))
    assert found.hd95_mm == 0
    assert found.s2s_mm > 0


def test_perfect():
    found = numbers(structure(CUBE, CUBE))
    ratios = dict.fromkeys(("dsc", "precision", "recall", "jaccard", "accuracy", *SURFACE_DSC), 1)
    lengths = dict.fromkeys(("s2s_mm", "directed_mean_mm", "hd95_mm", "hd_mm", "centroid_mm"), 0)
    volumes = {
        "truth_ml": 0.6,
        "predicted_ml": 0.6,
        "volume_difference_ml": 0,
        "volume_difference_percent": 0,
    }
    assert found == ratios | lengths | volumes


UNDEFINED = dict.fromkeys(NUMBERS)
NOTHING_RIGHT = dict.fromkeys(("dsc", "jaccard", *SURFACE_DSC), 0) | {"accuracy": 1 - 300 / 3200}


@pytest.mark.parametrize(
    ("truth", "predicted", "state", "defined", "volumes"),
    [
        (EMPTY, EMPTY, State.BOTH_EMPTY, {"accuracy": 1}, (0, 0, 0, None)),
        (CUBE, EMPTY, State.MISSED, NOTHING_RIGHT | {"recall": 0}, (0.6, 0, -0.6, -100)),
        (EMPTY, CUBE, State.SPURIOUS, NOTHING_RIGHT | {"precision": 0}, (0, 0.6, 0.6, None)),
    ],
)
def test_states_without_a_pair_of_surfaces(truth, predicted, state, defined, volumes):
    found = structure(truth, predicted)
    assert found.state is state
    assert numbers(found) == UNDEFINED | defined | dict(zip(VOLUMES, volumes, strict=True))
    # and the same when the structure's box is found in a label map
    truth_mask, predicted_mask = (
        Mask(labels=mask.astype(np.uint8) * 2, grid=GRID) for mask in (truth, predicted)
    )
    assert score(truth_mask, predicted_mask)["spleen"] == found


def test_not_labelled_is_never_scored():
    case = label_map(pancreas=((2, 2, 2), (6, 6, 6)), left_kidney=((10, 2, 2), (14, 6, 6)))
    scores = score(case, case, labelled=("pancreas", "left_kidney"))
    assert [score.state for score in scores.values()] == ["scored", "not labelled", "scored", "not labelled"]
    assert numbers(scores["spleen"]) == UNDEFINED


def test_a_half_labelled_kidney_is_not_scored_as_kidney():
    case = label_map(left_kidney=((10, 2, 2), (14, 6, 6)))
    predicted = Mask(labels=np.where(case.labels, 3, 0).astype(np.uint8), grid=GRID)
    scores = score(
        case, predicted, predicted_scheme=PAPER_SCHEME, labelled=("pancreas", "spleen", "left_kidney")
    )
    assert scores["kidney"].state is State.NOT_LABELLED
    assert score(case, predicted, predicted_scheme=PAPER_SCHEME)["kidney"].dsc == 1


def test_sides_of_the_truth_are_joined_for_an_unsided_prediction():
    truth = label_map(left_kidney=((2, 2, 2), (6, 6, 6)), right_kidney=((12, 8, 4), (16, 12, 8)))
    predicted = Mask(labels=np.where(truth.labels == 3, 3, 0).astype(np.uint8), grid=GRID)  # one side of both
    for pair in (
        (truth, DISK_SCHEME, predicted, PAPER_SCHEME),
        (predicted, PAPER_SCHEME, truth, DISK_SCHEME),
    ):
        kidney = score(pair[0], pair[2], pair[1], pair[3])["kidney"]
        assert kidney.dsc == pytest.approx(64 / 96)
        assert {kidney.precision, kidney.recall} == {1, 0.5}


def test_every_structure_is_found_by_its_own_code():
    truth = label_map(
        pancreas=((1, 1, 1), (4, 9, 4)),
        spleen=((6, 1, 1), (9, 9, 4)),
        left_kidney=((11, 1, 1), (14, 9, 4)),
        right_kidney=((16, 1, 1), (19, 9, 4)),
    )
    predicted = label_map(
        pancreas=((1, 1, 1), (4, 9, 4)),
        spleen=((6, 1, 1), (9, 5, 4)),
        left_kidney=((11, 12, 6), (14, 14, 8)),
        right_kidney=((16, 1, 3), (19, 9, 6)),
    )
    foreign = LabelScheme.from_names({"right_kidney": 200, "pancreas": 7, "spleen": 5, "left_kidney": 9})
    table = np.zeros(256, dtype=np.uint8)
    table[[1, 2, 3, 4]] = [7, 5, 9, 200]
    renamed = Mask(labels=table[predicted.labels], grid=GRID)
    scores = score(truth, renamed, predicted_scheme=foreign)
    for code, organ in enumerate(ORGANS, start=1):
        assert scores[organ] == dataclasses.replace(
            structure(truth.labels == code, predicted.labels == code), organ=organ
        )
    assert [scores[organ].dsc for organ in ORGANS] == pytest.approx([1, 2 / 3, 0, 1 / 3])


@pytest.mark.parametrize("order", ["C", "F"])
def test_how_a_label_map_lies_in_memory_changes_nothing(order):
    truth = label_map(spleen=((2, 3, 2), (6, 6, 8)), pancreas=((9, 1, 1), (19, 4, 3)))
    predicted = label_map(spleen=((3, 3, 2), (7, 6, 9)), pancreas=((9, 2, 1), (19, 5, 4)))
    again = [Mask(labels=np.asarray(mask.labels, order=order), grid=GRID) for mask in (truth, predicted)]
    assert score(*again) == score(truth, predicted)
    assert score(truth, predicted)["spleen"] == structure(truth.labels == 2, predicted.labels == 2)


def test_unknown_codes_are_background():
    truth = label_map(spleen=((2, 2, 2), (6, 6, 6)))
    noisy = truth.labels.copy()
    noisy[8:12] = 77
    assert score(truth, Mask(labels=noisy, grid=GRID)) == score(truth, truth)


def test_oblique_and_sheared_grids():
    tilt = np.array([[1, 0, 0], [0, 1, -0.5], [0, 0, 2.0]])
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])

    def on(matrix):
        affine = np.eye(4)
        affine[:3, :3] = matrix
        return structure(CUBE, SHIFTED, Grid(shape=SHAPE, affine=affine))

    straight = on(np.diag([1.0, 1, 2]))
    assert list(numbers(on(turn @ np.diag([1.0, 1, 2]))).values()) == pytest.approx(
        list(numbers(straight).values())
    )
    assert on(tilt).truth_ml == pytest.approx(straight.truth_ml)
    upright = np.diag(np.linalg.norm(tilt, axis=0))  # the same spacing without the tilt
    assert on(tilt).s2s_mm != pytest.approx(on(upright).s2s_mm, rel=1e-3)
    assert on(turn @ tilt).s2s_mm == pytest.approx(on(tilt).s2s_mm)


TURNED = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
little = arrays(bool, (4, 3, 5), elements=st.booleans(), fill=st.nothing())


@pytest.mark.parametrize("convention", list(SurfaceConvention))
@settings(max_examples=25, deadline=None)
@given(
    truth=little,
    predicted=little,
    spacing_mm=st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 2.5, 3.0])] * 3),
    oblique=st.booleans(),
    order=st.permutations(range(3)),
    flipped=st.sampled_from([(), (0,), (1, 2), (0, 1, 2)]),
)
def test_how_a_scan_is_stored_changes_no_number(
    convention, truth, predicted, spacing_mm, oblique, order, flipped
):
    """Axes in another order, some the other way round, and an affine that says so: every state and field."""
    affine = np.eye(4)
    affine[:3, :3] = (TURNED if oblique else np.eye(3)) * spacing_mm
    expected = structure(truth, predicted, Grid(shape=truth.shape, affine=affine), surface=convention)
    stored = affine.copy()
    for axis in flipped:
        stored[:3, 3] += stored[:3, axis] * (truth.shape[axis] - 1)
        stored[:3, axis] *= -1
    stored = stored[:, [*order, 3]]
    pair = [np.flip(mask, flipped).transpose(order) for mask in (truth, predicted)]
    again = structure(*pair, Grid(shape=pair[0].shape, affine=stored), surface=convention)
    assert again.state is expected.state
    assert numbers(again) == pytest.approx(numbers(expected), abs=1e-9)


def test_masks_on_different_grids_are_refused():
    moved = GRID.affine.copy()
    moved[0, 3] += 1
    truth = label_map(spleen=((2, 2, 2), (6, 6, 6)))
    with pytest.raises(ValueError, match=r"one: truth is on 20 x 16 x 10"):
        score(truth, Mask(labels=truth.labels, grid=Grid(shape=SHAPE, affine=moved)))
