"""Which cases are shown, and what of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.illustrate import Showing, choose_cases, illustrate, sketches
from ct_attn.labels import PAPER_SCHEME
from ct_attn.metrics.scores import CaseScore, State
from ct_attn.pairing import Pair, Reading
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume

GRID = Grid(shape=(16, 14, 10), affine=np.diag([4.0, 4, 5, 1]))


def score(case_id, dsc, organ="spleen"):
    state = State.NOT_LABELLED if dsc is None else State.SCORED
    return CaseScore(case_id=case_id, organ=organ, state=state, dsc=dsc)


SEVEN = [score(name, dsc) for name, dsc in zip("gfedcba", (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), strict=True)]


@pytest.mark.parametrize(
    ("n", "chosen"),
    [
        (0, {}),
        (1, {"a": "worst"}),
        (2, {"a": "worst", "d": "median"}),
        (3, {"a": "worst", "d": "median", "g": "best"}),
        (5, {"a": "worst", "b": "2nd worst", "c": "3rd worst", "d": "median", "g": "best"}),
        (7, {"a": "worst", "b": "2nd worst", "c": "3rd worst", "d": "median", "e": "3rd best",
             "f": "2nd best", "g": "best"}),
    ],
)  # fmt: skip
def test_most_of_the_chosen_are_the_worst(n, chosen):
    assert choose_cases(SEVEN, n) == chosen
    assert list(choose_cases(SEVEN, n)) == list(chosen)


def test_cases_give_way_in_the_order_in_which_fewer_would_be_chosen():
    """The worst stays longest, then the median, the best, the second worst ..."""
    pairs = [
        Pair(case_id=name, truth=Path(name), predicted=Path(name), image=Path(name)) for name in "abcdefg"
    ]
    drawn = sketches(pairs, SEVEN, Reading(), Showing(pictures=7, viewer=0))
    by_interest = [one.pair.case_id for one in sorted(drawn, key=lambda one: one.interest)]
    for n in range(1, 8):
        assert set(by_interest[:n]) == set(choose_cases(SEVEN, n))


def test_a_case_is_judged_by_the_mean_of_its_organs_and_one_without_dsc_is_not_shown():
    scores = [score("a", 0.9), score("a", 0.1, "kidney"), score("b", 0.6), score("c", None)]
    assert choose_cases(scores, 9) == {"a": "worst", "b": "best"}
    assert choose_cases([score("a", 0.9)], 1) == {"a": "only case"}


@pytest.fixture
def pair(tmp_path):
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[4:10, 4:9, 3:7] = 2
    for name, shift in (("truth", 0), ("predicted", 1)):
        mask = Mask(labels=np.roll(labels, shift, axis=0), grid=GRID)
        nifti.write_mask(mask, tmp_path / name / "a.nii.gz", scheme=PAPER_SCHEME)
    nifti.write_volume(Volume(hu=np.full(GRID.shape, 40, np.int16), grid=GRID), tmp_path / "scan.nii.gz")
    return Pair(
        case_id="a",
        truth=tmp_path / "truth" / "a.nii.gz",
        predicted=tmp_path / "predicted" / "a.nii.gz",
        image=tmp_path / "scan.nii.gz",
    )


def shown(pair, **showing):
    [sketch] = sketches([pair], [score("a", 0.5)], Reading(), Showing(**showing))
    return illustrate(sketch)


def write_gate(folder, grid=GRID):
    alpha = np.linspace(0, 1, grid.shape[0], dtype=np.float32)[:, None, None] * np.ones(
        grid.shape, np.float32
    )
    nifti.write_volume(Volume(hu=alpha, grid=grid), folder / "level1.nii.gz")


def test_a_case_has_contours_and_errors_and_what_the_viewer_needs(pair):
    made = shown(pair)
    assert [picture.caption.split(":")[0] for picture in made.pictures] == ["Contours", "Errors"]
    assert all("Axial, coronal and sagittal slices of a" in picture.alt for picture in made.pictures)
    assert made.viewer is not None
    assert shown(pair, viewer=0).viewer is None
    assert shown(pair, pictures=0).pictures == ()


def test_a_case_whose_scan_is_not_known_is_not_chosen(pair):
    blind = Pair(case_id="a", truth=pair.truth, predicted=pair.predicted)
    assert sketches([blind], [score("a", 0.5)], Reading(), Showing()) == []


@pytest.mark.parametrize("place", ["beside", "a_attention", "a"])
def test_gates_are_found_beside_the_mask_or_where_the_user_says(pair, tmp_path, place):
    folder = pair.predicted.parent / "a_attention" if place == "beside" else tmp_path / "elsewhere" / place
    write_gate(folder)
    made = shown(pair, attention=None if place == "beside" else tmp_path / "elsewhere")
    [caption] = [picture.caption for picture in made.pictures[2:]]
    assert "gate level1" in caption
    assert "no explanation" in caption


def test_a_gate_on_another_grid_is_an_error_that_is_handed_back(pair):
    write_gate(pair.predicted.parent / "a_attention", Grid(shape=GRID.shape, affine=np.eye(4)))
    error = shown(pair)
    assert isinstance(error, UserError)
    assert "level1.nii.gz" in str(error)
