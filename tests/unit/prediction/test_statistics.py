from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given

from ct_attn.labels import PAPER_SCHEME
from ct_attn.prediction.sides import tell_apart
from ct_attn.prediction.statistics import measure, organ_statistics
from ct_attn.prediction.tables import HEADER, write_statistics
from ct_attn.volume import Mask, Volume
from tests.unit.grids import SOME_CODES, grid_of, oblique_grids, voxel_centres_mm

SIZE, SPACING_MM, CENTRE_MM = (60, 40, 30), (4, 4, 5), (30, -20, 100)


def patient(code="RAS", **changes):
    """A body of water, 160 mm wide around x = 30 mm, in air; and the RAS mm of every voxel."""
    grid = grid_of(code, size=SIZE, spacing_mm=SPACING_MM, centre_mm=CENTRE_MM, **changes)
    points = voxel_centres_mm(grid)
    body = np.abs(points[..., 0] - 30) < 80
    return Volume(hu=np.where(body, 0, -1000).astype(np.int16), grid=grid), points


def ball(points, x, y=-20, z=100, radius=22):
    return np.linalg.norm(points - (x, y, z), axis=-1) < radius


@pytest.mark.parametrize("code", SOME_CODES)
def test_volume_hu_extent_and_centre_do_not_depend_on_how_axes_are_stored(code):
    volume, points = patient(code)
    found = measure(ball(points, 10, -30, 90), volume, "spleen")
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 2.2**3, rel=0.05)
    assert found.extent_mm == pytest.approx((44, 44, 45), abs=5)
    assert found.centroid_mm == pytest.approx((10, -30, 90), abs=0.5)
    assert (found.mean_hu, found.std_hu) == (0, 0)
    assert found.cut == ()


@given(oblique_grids())
def test_volumes_of_an_organ_and_of_the_rest_add_up_on_any_grid(grid):
    rng = np.random.default_rng(0)
    organ = rng.random(grid.shape) < 0.3
    volume = Volume(hu=rng.integers(-100, 100, grid.shape).astype(np.int16), grid=grid)
    parts = [measure(part, volume, "x") for part in (organ, ~organ)]
    whole_ml = np.prod(grid.shape) * grid.voxel_volume_mm3 / 1000
    assert sum(part.volume_ml for part in parts) == pytest.approx(whole_ml)
    assert np.sum([part.voxels * part.mean_hu for part in parts]) == pytest.approx(volume.hu.sum())
    centre = np.average([part.centroid_mm for part in parts], axis=0, weights=[part.voxels for part in parts])
    assert centre == pytest.approx(grid.centre_mm, abs=1e-6)


@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize(
    ("shift_mm", "faces"), [((0, 0, 75), ("S",)), ((0, 80, 0), ("A",)), ((-120, 0, -75), ("I", "L"))]
)
def test_an_organ_cut_by_the_field_of_view_says_on_which_side(code, shift_mm, faces):
    volume, points = patient(code)
    x, y, z = np.add(CENTRE_MM, shift_mm)
    assert measure(ball(points, x, y, z), volume, "spleen").cut == faces


def test_an_organ_that_reaches_what_was_never_reconstructed_is_cut():
    volume, points = patient()
    volume.hu[points[..., 0] < -5] = -3024
    assert measure(ball(points, 0), volume, "spleen").cut == ("padding",)
    assert measure(ball(points, 40), volume, "spleen").cut == ()


def test_an_organ_that_is_not_there_has_no_numbers():
    volume, points = patient()
    found = measure(np.zeros(points.shape[:3], dtype=bool), volume, "spleen")
    assert (found.voxels, found.volume_ml) == (0, 0)
    assert found.mean_hu is found.centroid_mm is found.extent_mm is None


@pytest.mark.parametrize("code", SOME_CODES)
def test_kidneys_are_told_apart_by_the_bodys_middle(code):
    volume, points = patient(code)
    left, right = ball(points, -20), ball(points, 80, radius=26)  # RAS: the right one has the larger x
    sides = tell_apart(left | right, volume)
    assert sides.doubts == ()
    assert np.array_equal(sides.masks["left_kidney"], left)
    assert np.array_equal(sides.masks["right_kidney"], right)


def test_the_middle_is_the_bodys_not_the_scans_and_the_table_does_not_count():
    volume, points = patient()
    volume.hu[(points[..., 0] < -80) & (points[..., 1] < -85)] = 200  # a table, far on the left
    left, right = ball(points, 0), ball(points, 62)  # both right of the scan's origin, one left of the body's
    sides = tell_apart(left | right, volume)
    assert np.array_equal(sides.masks["right_kidney"], right)
    assert np.array_equal(sides.masks["left_kidney"], left)


def test_a_single_kidney_is_on_its_side_without_doubt():
    volume, points = patient()
    sides = tell_apart(ball(points, 80), volume)
    assert sides.doubts == ()
    assert not sides.masks["left_kidney"].any()


def test_a_horseshoe_kidney_is_split_in_the_middle_and_flagged():
    volume, points = patient()
    horseshoe = (
        ball(points, -5) | ball(points, 65) | ((np.abs(points - (30, -20, 100)) < (50, 6, 6)).all(axis=-1))
    )
    sides = tell_apart(horseshoe, volume)
    assert sides.doubts == ("crosses_midline",)
    assert np.array_equal(sides.masks["left_kidney"] | sides.masks["right_kidney"], horseshoe)
    assert points[sides.masks["right_kidney"]][:, 0].min() == pytest.approx(30, abs=8)


def test_two_kidneys_on_one_side_are_flagged():
    volume, points = patient()
    sides = tell_apart(ball(points, 80, z=60) | ball(points, 80, z=140), volume)
    assert sides.doubts == ("one_side_only",)


def test_crumbs_do_not_make_a_case_doubtful():
    volume, points = patient()
    sides = tell_apart(ball(points, -20) | ball(points, 80) | ball(points, 30, radius=6), volume)
    assert sides.doubts == ()


def test_both_kidneys_follow_what_the_model_calls_kidney():
    volume, points = patient()
    labels = np.where(ball(points, -20) | ball(points, 80), 3, 0).astype(np.uint8)
    found = organ_statistics(volume, Mask(labels=labels, grid=volume.grid), PAPER_SCHEME, {"kidney": 0.9})
    assert [one.organ for one in found] == ["pancreas", "spleen", "kidney", "left_kidney", "right_kidney"]
    both, left, right = found[2:]
    assert both.voxels == left.voxels + right.voxels
    assert (both.confidence, left.confidence, found[0].confidence) == (0.9, 0.9, None)


def test_tables_hold_a_row_per_case_and_organ_and_json_the_same(tmp_path):
    volume, points = patient()
    found = measure(ball(points, 10), volume, "spleen", confidence=0.5)
    absent = measure(np.zeros(points.shape[:3], dtype=bool), volume, "pancreas")
    paths = write_statistics({"one": [found, absent]}, tmp_path / "statistics.csv")
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HEADER
    assert float(rows[0]["volume_ml"]) == pytest.approx(found.volume_ml, abs=1e-3)
    assert (rows[1]["organ"], rows[1]["mean_hu"], rows[1]["extent_r_mm"]) == ("pancreas", "", "")
    assert json.loads(paths[1].read_text())["cases"]["one"][0]["voxels"] == found.voxels
