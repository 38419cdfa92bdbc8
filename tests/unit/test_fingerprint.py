from __future__ import annotations

import numpy as np
import pytest

from ct_attn.fingerprint import SAMPLES_PER_CASE, examine_case, summarise
from ct_attn.volume import Grid, Mask, Volume


def case(spacing_mm=(0.8, 0.7, 3.0), shape=(20, 30, 10), hu=100.0):
    grid = Grid(shape=shape, affine=np.diag([*spacing_mm, 1.0]))
    labels = np.zeros(shape, dtype=np.uint8)
    labels[5:15, 10:12, 3:7] = 2
    volume = np.full(shape, -1000.0, dtype=np.float32)
    volume[labels > 0] = hu
    return Volume(hu=volume, grid=grid), Mask(labels=labels, grid=grid)


def facts(*, axes=(0, 1, 2), **options):
    volume, mask = case(**options)
    return examine_case(volume, mask, axes, np.random.default_rng(0))


def test_a_case_is_measured_in_mm_along_r_a_s():
    found = facts()
    assert found.spacing_mm == pytest.approx((0.8, 0.7, 3.0))
    assert found.extent_mm == pytest.approx((16.0, 21.0, 30.0))
    assert found.organs_mm == pytest.approx((8.0, 1.4, 12.0))
    assert set(found.hu) == {100.0}
    assert len(found.hu) == 10 * 2 * 4


def test_axes_are_put_in_order():
    found = facts(axes=(2, 0, 1))
    assert found.spacing_mm == pytest.approx((3.0, 0.8, 0.7))
    assert found.organs_mm == pytest.approx((12.0, 8.0, 1.4))


def test_a_case_without_organs_has_its_whole_extent_and_no_hu():
    volume, mask = case()
    empty = Mask(labels=np.zeros_like(mask.labels), grid=mask.grid)
    found = examine_case(volume, empty, (0, 1, 2), np.random.default_rng(0))
    assert found.organs_mm == found.extent_mm
    assert found.hu.size == 0
    assert summarise([found]).hu_window == (-160.0, 240.0)


def test_a_large_organ_is_sampled():
    volume, mask = case(shape=(60, 60, 60))
    labels = np.ones_like(mask.labels)
    found = examine_case(volume, Mask(labels=labels, grid=mask.grid), (0, 1, 2), np.random.default_rng(0))
    assert len(found.hu) == SAMPLES_PER_CASE


def test_a_data_set_is_its_medians_and_the_hu_of_all_cases():
    fingerprint = summarise([facts(hu=-37.0), facts(hu=100.0, spacing_mm=(1.0, 1.0, 5.0)), facts(hu=212.0)])
    assert fingerprint.n_cases == 3
    assert fingerprint.spacing_mm == pytest.approx((0.8, 0.7, 3.0))
    assert fingerprint.hu_window == (-40.0, 220.0)
