from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ct_attn.errors import UserError
from ct_attn.labels import PAPER_SCHEME
from ct_attn.prediction.filtering import OrganFilter, connected_parts, filter_mask, parse_filter
from ct_attn.volume import Grid, Mask

LARGEST = OrganFilter(keep_largest=True)


def mask_of(labels, *, step_mm=1.0):
    return Mask(labels=labels, grid=Grid(shape=labels.shape, affine=np.diag([step_mm] * 3 + [1.0])))


def blocks(*sizes, code=1):
    """Cubes of these sides, apart from each other."""
    labels = np.zeros((12 * len(sizes), 12, 12), dtype=np.uint8)
    for place, side in enumerate(sizes):
        labels[12 * place : 12 * place + side, :side, :side] = code
    return labels


def test_only_the_largest_part_of_an_organ_stays():
    filtered, effects = filter_mask(mask_of(blocks(2, 5, 3)), PAPER_SCHEME, {"pancreas": LARGEST})
    assert np.array_equal(filtered.labels, blocks(0, 5, 0))
    assert effects["pancreas"].removed_parts == 2
    assert effects["pancreas"].removed_ml == pytest.approx((8 + 27) / 1000)


def test_a_pair_of_organs_keeps_two_parts():
    filtered, _ = filter_mask(mask_of(blocks(2, 5, 3, code=3)), PAPER_SCHEME, {"kidney": LARGEST})
    assert np.array_equal(filtered.labels, blocks(0, 5, 3, code=3))


def test_parts_below_a_volume_go_and_volume_counts_in_ml():
    least = OrganFilter(minimum_ml=1.0)  # 27 voxels of 8 mm³ are 0.2 ml, 216 are 1.7 ml
    filtered, _ = filter_mask(mask_of(blocks(3, 6), step_mm=2.0), PAPER_SCHEME, {"pancreas": least})
    assert np.array_equal(filtered.labels, blocks(0, 6))


def test_parts_that_touch_at_a_corner_are_one():
    organ = np.zeros((4, 4, 4), dtype=bool)
    organ[0, 0, 0] = organ[1, 1, 1] = organ[3, 3, 3] = True
    assert list(connected_parts(organ)[1]) == [2, 1]


@given(arrays(np.uint8, (6, 5, 4), elements=st.integers(0, 3)), st.booleans(), st.floats(0, 0.02))
def test_a_filter_only_takes_away_and_again_takes_nothing(labels, keep_largest, minimum_ml):
    filters = dict.fromkeys(PAPER_SCHEME.names, OrganFilter(keep_largest=keep_largest, minimum_ml=minimum_ml))
    before = labels.copy()
    once, effects = filter_mask(mask_of(labels), PAPER_SCHEME, filters)
    twice, _ = filter_mask(once, PAPER_SCHEME, filters)
    assert np.array_equal(labels, before)
    assert ((once.labels == labels) | (once.labels == 0)).all()
    assert np.array_equal(once.labels, twice.labels)
    removed = sum(effect.removed_ml for effect in effects.values())
    assert removed == pytest.approx(np.count_nonzero(once.labels != labels) / 1000)


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("largest", dict.fromkeys(PAPER_SCHEME.names, LARGEST)),
        ("off", dict.fromkeys(PAPER_SCHEME.names, OrganFilter())),
        ("spleen=2ml", {"spleen": OrganFilter(minimum_ml=2)}),
        (
            "kidney=largest+0.5ml, spleen=off",
            {"kidney": OrganFilter(keep_largest=True, minimum_ml=0.5), "spleen": OrganFilter()},
        ),
    ],
)
def test_filters_are_read_as_they_are_written(text, filters):
    assert parse_filter(text, PAPER_SCHEME) == filters


@pytest.mark.parametrize("text", ["biggest", "2", "kidney=-1ml", "spleen=2mm", "liver=largest"])
def test_a_filter_that_means_nothing_is_refused(text):
    with pytest.raises(UserError, match=f"--filter {text}"):
        parse_filter(text, PAPER_SCHEME)
