from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ct_attn.datasets.phantom import PhantomConfig, draw_case
from ct_attn.datasets.phantom.anatomy import draw_anatomy
from ct_attn.datasets.phantom.scanner import PADDING_HU, draw_setup, scan

CONFIG = PhantomConfig(
    in_plane_spacing_mm=(4.0, 4.0),
    slice_spacing_mm=(5.0, 5.0),
    orientations=("RAS",),
    oblique_probability=0.0,
    padding_probability=0.0,
    noise_hu=(12.0, 12.0),
)


@pytest.fixture(scope="module")
def anatomy():
    return draw_anatomy(np.random.SeedSequence(4), scale=1.0)


def setup_of(anatomy, config=CONFIG, seed=1):
    return draw_setup(np.random.default_rng(seed), config, anatomy)


def scanned(anatomy, **changes):
    setup = replace(setup_of(anatomy), **changes)
    volume, mask = scan(anatomy, setup, np.random.SeedSequence(2))
    return volume.hu, mask.labels


def outside_circle(side):
    offset = np.arange(side) - (side - 1) / 2
    return np.hypot(offset, offset[:, None]) > side / 2


def test_padding_fills_exactly_the_corners_outside_the_circle(anatomy):
    plain, _ = scanned(anatomy, padded=False)
    padded, labels = scanned(anatomy, padded=True)
    corners = outside_circle(padded.shape[0])
    assert (padded[corners] == PADDING_HU).all()
    assert not labels[corners].any()
    assert np.array_equal(padded[~corners], plain[~corners])
    assert plain.min() >= -1024
    assert plain.max() <= 3071


def test_air_measures_minus_1000_and_noise_what_was_asked_for(anatomy):
    hu, _ = scanned(anatomy, noise_hu=12.0)
    # the top rows of a slice lie in front of the patient
    air = hu[:, -6:, :].astype(float)
    inside_limits = air[air > -1024]
    assert np.median(air) == pytest.approx(-1000, abs=2)
    assert np.sqrt(np.mean((inside_limits[inside_limits > -1000] + 1000) ** 2)) == pytest.approx(12, rel=0.1)


def test_without_noise_the_same_tissue_repeats_and_noise_adds_nothing_on_average(anatomy):
    clean, labels = scanned(anatomy, noise_hu=0.0)
    noisy, _ = scanned(anatomy, noise_hu=20.0)
    inside = labels == 2
    assert (noisy[inside] - clean[inside]).std() == pytest.approx(20, rel=0.1)
    assert (noisy[inside] - clean[inside]).mean() == pytest.approx(0, abs=2)


def test_blur_softens_edges(anatomy):
    sharp, _ = scanned(anatomy, noise_hu=0.0, blur_mm=0.0)
    soft, _ = scanned(anatomy, noise_hu=0.0, blur_mm=6.0)
    assert (
        np.abs(np.diff(soft.astype(float), axis=0)).max()
        < 0.8 * np.abs(np.diff(sharp.astype(float), axis=0)).max()
    )


def test_thick_slices_average_what_thin_ones_show(anatomy):
    thick_setup = replace(setup_of(anatomy), noise_hu=0.0, blur_mm=0.0)
    nx, ny, _ = thick_setup.size
    thin_setup = replace(
        thick_setup,
        slice_mm=thick_setup.slice_mm / 4,
        size=(nx, ny, 8),
        first_mm=thick_setup.first_mm + np.array([0, 0, 9.5 * thick_setup.slice_mm]),
    )
    thick, _ = scan(anatomy, thick_setup, np.random.SeedSequence(0))
    thin, _ = scan(anatomy, thin_setup, np.random.SeedSequence(0))
    expected = thin.hu[:, :, 2] / 2 + thin.hu[:, :, 0] / 4 + thin.hu[:, :, 4] / 4
    assert np.abs(thick.hu[:, :, 10] - expected).max() <= 2


def test_slabs_leave_no_seam(anatomy, monkeypatch):
    whole, whole_labels = scanned(anatomy)
    monkeypatch.setattr("ct_attn.datasets.phantom.scanner._POINTS_AT_ONCE", 100_000)
    slabs, slab_labels = scanned(anatomy)
    assert np.abs(whole.astype(int) - slabs).max() <= 1
    assert (whole_labels != slab_labels).mean() < 1e-5


def test_slice_spacing_is_a_usual_one_where_the_range_holds_any(anatomy):
    drawn = {setup_of(anatomy, replace(CONFIG, slice_spacing_mm=(1.9, 3.2)), s).slice_mm for s in range(30)}
    assert drawn == {2.0, 2.5, 3.0}
    assert 2.6 <= setup_of(anatomy, replace(CONFIG, slice_spacing_mm=(2.6, 2.9))).slice_mm <= 2.9


def test_field_of_view_and_coverage_stay_in_their_ranges(anatomy):
    for seed in range(20):
        setup = setup_of(anatomy, seed=seed)
        assert 318 <= setup.size[0] * setup.pixel_mm <= 422
        assert 227 <= setup.size[2] * setup.slice_mm <= 303


def test_oblique_cases_turn_the_affine_a_little():
    case = draw_case(6, replace(CONFIG, oblique_probability=1.0))
    directions = case.volume.grid.directions
    assert case.facts.oblique
    assert not np.allclose(directions, np.eye(3), atol=1e-3)
    assert np.degrees(np.arccos(directions.diagonal())).max() < 8
    assert case.volume.grid.is_orthogonal
