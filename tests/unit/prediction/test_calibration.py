from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ct_attn.errors import UserError
from ct_attn.metrics.overlap import count_overlap
from ct_attn.prediction.calibration import CANDIDATES, calibrate_organ, choose_filter, part_overlaps
from ct_attn.prediction.filtering import OrganFilter, rejected_parts
from ct_attn.prediction.postprocessing import (
    FilterChoice,
    Postprocessing,
    common_filters,
    common_ranges,
    expected_dsc,
    read_postprocessing,
    write_postprocessing,
)
from ct_attn.prediction.ranges import ranges_of, scan_facts
from tests.unit.prediction.test_ranges import scan

BOOL = arrays(np.bool_, (7, 6, 5))


@given(BOOL, BOOL, st.sampled_from(CANDIDATES))
def test_the_dsc_from_parts_is_that_of_the_filtered_mask(truth, predicted, chosen):
    parts = part_overlaps(truth, predicted, n_largest=1, voxel_mm3=100.0)
    rejected, _ = rejected_parts(predicted, chosen, n_largest=1, voxel_mm3=100.0)
    dsc = count_overlap(truth, predicted & ~rejected).dsc
    assert parts.dsc(chosen) == pytest.approx(1.0 if dsc is None else dsc)


def case(*, crumb, second=0):
    """An organ of 1000 voxels (1 ml each 1000), found in full, with false or true parts beside it."""
    truth, predicted = np.zeros((2, 40, 20, 20), dtype=bool)
    truth[:10, :10, :10] = predicted[:10, :10, :10] = True
    predicted[15 : 15 + crumb, :5, :5] = True
    truth[28:40, :second, :second] = predicted[28:40, :second, :second] = True
    return part_overlaps(truth, predicted, n_largest=1, voxel_mm3=1.0)


def test_dropping_false_parts_is_chosen_and_says_what_it_brings():
    choice = choose_filter([case(crumb=6), case(crumb=3)])
    assert choice.filter.keep_largest
    assert choice.dsc_with == 1
    assert choice.dsc_without == pytest.approx((2000 / 2150 + 2000 / 2075) / 2)


def test_an_organ_in_two_true_parts_keeps_both():
    choice = choose_filter([case(crumb=6, second=8), case(crumb=3, second=8)])
    assert not choice.filter.keep_largest
    assert choice.filter.minimum_ml == pytest.approx(0.5)


def test_nothing_is_dropped_where_it_brings_nothing():
    assert choose_filter([case(crumb=0)]).filter == OrganFilter()
    assert choose_filter([]).filter == OrganFilter()


def test_an_organ_that_was_made_up_counts_when_it_is_dropped():
    nothing = np.zeros((9, 9, 9), dtype=bool)
    invented = nothing.copy()
    invented[:3, :3, :3] = True
    choice = choose_filter([part_overlaps(nothing, invented, n_largest=1, voxel_mm3=1.0)])
    assert choice.filter == OrganFilter(minimum_ml=0.5)
    assert (choice.dsc_without, choice.dsc_with) == (0, 1)


def test_confidence_that_rises_with_dsc_has_rank_correlation_1_and_rising_bins():
    points = [(1 - 0.1 / step, 0.5 + 0.04 * step) for step in range(1, 13)]
    found = calibrate_organ(points)
    assert found.rank_correlation == pytest.approx(1)
    assert [one.n_cases for one in found.bins] == [3, 3, 3, 3]
    assert found.bins[0].mean_dsc < found.bins[-1].mean_dsc
    assert found.expected_dsc(1.0) == found.bins[-1].mean_dsc
    assert found.expected_dsc(0.0) == found.bins[0].mean_dsc
    assert calibrate_organ([(c, 1 - d) for c, d in points]).rank_correlation == pytest.approx(-1)


@pytest.mark.parametrize("points", [[], [(0.5, 0.5)], [(0.5, 0.1), (0.5, 0.2), (0.5, 0.3)]])
def test_too_few_cases_or_equal_ones_have_no_rank_correlation(points):
    assert calibrate_organ(points).rank_correlation is None


def learnt(digest="sha256:a", **filters):
    chosen = {
        organ: FilterChoice(filter=one, n_cases=1, dsc_without=0.5, dsc_with=0.6)
        for organ, one in filters.items()
    }
    return Postprocessing(
        model_digest=digest,
        manifest_digest="sha256:m",
        fold=0,
        n_cases=1,
        version="0",
        filters=chosen,
        calibration={organ: calibrate_organ([(0.9, 0.8)] * 3) for organ in filters},
        training=ranges_of([scan_facts(scan())]),
    )


def test_what_is_written_is_read_again_for_the_same_model_only(tmp_path):
    assert read_postprocessing(tmp_path, "sha256:a") is None
    write_postprocessing(learnt(spleen=OrganFilter(minimum_ml=2)), tmp_path)
    assert read_postprocessing(tmp_path, "sha256:a") == learnt(spleen=OrganFilter(minimum_ml=2))
    with pytest.raises(UserError, match="ct-attn calibrate again, or say --filter off"):
        read_postprocessing(tmp_path, "sha256:b")
    (tmp_path / "postprocessing.json").write_text("{}")
    with pytest.raises(UserError, match="a file that ct-attn calibrate wrote"):
        read_postprocessing(tmp_path, "sha256:a")


def test_a_mean_of_models_drops_only_what_each_would_drop():
    one = learnt(spleen=OrganFilter(keep_largest=True), kidney=OrganFilter(minimum_ml=2))
    other = learnt(spleen=OrganFilter(), kidney=OrganFilter(minimum_ml=5))
    assert common_filters([one, other]) == {"spleen": OrganFilter(), "kidney": OrganFilter(minimum_ml=2)}
    assert common_filters([one, None]) == {}
    assert common_ranges([one, None]) is None
    assert common_ranges([one, other]).n_cases == 2


def test_the_expected_dsc_is_that_of_the_models_own_calibration():
    one = learnt(spleen=OrganFilter())
    assert expected_dsc([one], {"spleen": 0.9, "kidney": 0.9}) == {"spleen": pytest.approx(0.8)}
    assert expected_dsc([one], {"spleen": None}) == {"spleen": None}
    assert expected_dsc([one, one], {"spleen": 0.9}) == {}
