from __future__ import annotations

import numpy as np
import pytest

from ct_attn.baseline import UsualPlace, guess_mask, usual_places
from ct_attn.labels import PAPER_SCHEME
from ct_attn.volume import Mask
from tests.unit.grids import SOME_CODES, grid_of, voxel_centres_mm

BALL_MM3 = 4 / 3 * np.pi * 10**3  # radius 10 mm


def place(code=1, offset_mm=(0, 0, 0), volume_mm3=BALL_MM3) -> UsualPlace:
    return UsualPlace(code=code, offset_mm=np.array(offset_mm, dtype=float), volume_mm3=volume_mm3)


def scan(code="RAS", **changes):
    arguments = {"size": (40, 44, 30), "spacing_mm": (1, 1.2, 2), "centre_mm": (120, -60, 900)}
    return grid_of(code, **{**arguments, **changes})


@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize("angles", [(0, 0, 0), (0.2, -0.1, 0.3)], ids=["straight", "oblique"])
def test_a_ball_of_the_usual_volume_at_the_usual_place(code, angles):
    grid = scan(code, angles=angles)
    mask = guess_mask(grid, [place(2, (3, -5, 7))])
    assert mask.grid is grid
    assert np.unique(mask.labels).tolist() == [0, 2]
    inside = mask.labels == 2
    assert inside.sum() * grid.voxel_volume_mm3 == pytest.approx(BALL_MM3, rel=0.02)
    centre_mm = np.array([123, -65, 907])
    assert voxel_centres_mm(grid)[inside].mean(axis=0) == pytest.approx(centre_mm, abs=0.2)
    distance_mm = np.linalg.norm(voxel_centres_mm(grid) - centre_mm, axis=-1)
    assert np.array_equal(inside, distance_mm <= 10)


@pytest.mark.parametrize("offset_mm", [(500, 0, 0), (-500, 0, 0), (0, 500, 0), (0, 0, -500), (300, 300, 300)])
@pytest.mark.parametrize("code", SOME_CODES)
def test_a_ball_beyond_the_scan_is_no_error(code, offset_mm):
    assert not guess_mask(scan(code), [place(offset_mm=offset_mm)]).labels.any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_ball_half_beyond_the_scan_is_cut(axis, side):
    grid = scan()
    edge_mm = side * np.array(grid.shape) / 2 * grid.spacing_mm
    mask = guess_mask(grid, [place(offset_mm=np.eye(3)[axis] * edge_mm)])
    assert mask.labels.sum() * grid.voxel_volume_mm3 == pytest.approx(BALL_MM3 / 2, rel=0.1)


def test_a_later_ball_covers_an_earlier_one():
    mask = guess_mask(scan(), [place(1, volume_mm3=BALL_MM3), place(2, volume_mm3=BALL_MM3 / 8)])
    assert (mask.labels == 2).sum() / (mask.labels > 0).sum() == pytest.approx(1 / 8, rel=0.1)


def test_the_usual_place_is_the_mean_over_masks_in_mm():
    """3 voxels of 2.4 mm^3 each, 1 mm towards R; then 5 voxels, 7 mm towards R."""
    masks = []
    for code, voxels, shift_mm in (("RAS", 2, 1), ("LPS", 4, 7)):
        grid = scan(code, size=(41, 45, 31))
        centre = grid.to_voxels(grid.centre_mm + np.array([shift_mm, 0, 0])).round().astype(int)
        labels = np.zeros(grid.shape, np.uint8)
        along = int(np.flatnonzero(np.abs(grid.directions[2]) > 0.5)[0])
        first, last = [list(centre), list(centre)]
        first[along] -= voxels // 2
        last[along] += voxels // 2
        labels[tuple(slice(min(a, b), max(a, b) + 1) for a, b in zip(first, last, strict=True))] = 2
        masks.append(Mask(labels=labels, grid=grid))
    (spleen,) = usual_places(masks, PAPER_SCHEME)
    assert spleen.code == PAPER_SCHEME.codes["spleen"]
    assert spleen.offset_mm == pytest.approx([4, 0, 0])
    assert spleen.volume_mm3 == pytest.approx((3 + 5) / 2 * 2.4)


@pytest.mark.parametrize("code", SOME_CODES)
def test_guessing_from_one_ball_gives_that_ball_back(code):
    truth = guess_mask(scan(code), [place(3, (4, 2, -3))])
    guess = guess_mask(scan("RAS"), usual_places([truth], PAPER_SCHEME))
    expected = guess_mask(scan("RAS"), [place(3, (4, 2, -3))])
    overlap = ((guess.labels == 3) & (expected.labels == 3)).sum()
    assert 2 * overlap / ((guess.labels == 3).sum() + (expected.labels == 3).sum()) > 0.97


def test_no_masks_no_places():
    assert usual_places([], PAPER_SCHEME) == []
