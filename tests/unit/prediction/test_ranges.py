from __future__ import annotations

import numpy as np
import pytest

from ct_attn.prediction.ranges import joined, ranges_of, scan_facts, unlike_training
from ct_attn.volume import Volume
from tests.unit.grids import SOME_CODES, grid_of


def scan(code="RAS", *, size=(40, 30, 20), spacing_mm=(2, 2, 3), hu=40):
    grid = grid_of(code, size=size, spacing_mm=spacing_mm)
    values = np.full(grid.shape, -1000, dtype=np.int16)
    values[3:-3, 3:-3, 3:-3] = hu
    return Volume(hu=values, grid=grid)


def warnings(volume, *training):
    return unlike_training(scan_facts(volume), ranges_of([scan_facts(one) for one in training]))


@pytest.mark.parametrize("code", SOME_CODES)
def test_facts_are_along_the_patients_axes_and_air_does_not_count(code):
    facts = scan_facts(scan(code))
    assert facts.spacing_mm == pytest.approx((2, 2, 3))
    assert facts.extent_mm == pytest.approx((80, 60, 60))
    assert facts.hu == (40, 40, 40)


def test_a_scan_like_the_training_is_let_pass():
    assert warnings(scan(), scan(), scan(spacing_mm=(1, 1, 5))) == []
    assert warnings(scan("PIL", hu=55), scan(), scan(hu=60)) == []


def test_thicker_slices_another_field_of_view_and_other_values_are_told():
    (thick,) = warnings(scan(size=(40, 30, 8), spacing_mm=(2, 2, 8)), scan())
    assert thick == "unlike the training scans: voxels head-foot of 8 mm, theirs 3 to 3 mm"
    (small,) = warnings(scan(size=(40, 30, 9)), scan())
    assert "a field of view head-foot of 27 mm, theirs 60 to 60 mm" in small
    shifted = warnings(scan(hu=1040), scan())
    assert len(shifted) == 3
    assert all("HU at the" in sentence for sentence in shifted)


def test_what_one_of_several_models_was_trained_on_is_known():
    fine, coarse = (ranges_of([scan_facts(scan(spacing_mm=(2, 2, step)))]) for step in (1, 6))
    both = joined([fine, coarse])
    assert both.n_cases == 2
    assert (both.spacing_mm[2].low, both.spacing_mm[2].high) == (1, 6)
