from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ct_attn.datasets.phantom.shapes import Drum, Ellipsoid, RoundCone, rotation, smooth_path, tube


def distance(solid, *point):
    x, y, z = (np.full((1, 1, 1), value, dtype=np.float32) for value in point)
    return float(solid.distance(x, y, z)[0, 0, 0])


def test_distance_to_a_ball():
    ball = Ellipsoid(centre_mm=(1, 2, 3), radii_mm=(5, 5, 5))
    assert distance(ball, 1, 2, 11) == pytest.approx(3, abs=1e-3)
    assert distance(ball, 1, 4, 3) == pytest.approx(-3, abs=1e-3)


def test_an_ellipsoid_turned_by_a_right_angle_swaps_its_axes():
    turned = Ellipsoid(centre_mm=(0, 0, 0), radii_mm=(10, 4, 4), rotation=rotation(0, 0, 90))
    assert distance(turned, 0, 10, 0) == pytest.approx(0, abs=1e-4)
    assert distance(turned, 4, 0, 0) == pytest.approx(0, abs=1e-4)


def test_distance_to_a_tapered_tube():
    cone = RoundCone(start_mm=(0, 0, 0), end_mm=(10, 0, 0), start_radius_mm=4, end_radius_mm=2)
    assert distance(cone, 0, 6, 0) == pytest.approx(2)
    assert distance(cone, 5, 6, 0) == pytest.approx(3)
    assert distance(cone, 13, 0, 0) == pytest.approx(1)


def test_a_flattened_tube_is_wider_along_that_axis():
    cone = RoundCone(
        start_mm=(0, 0, 0), end_mm=(10, 0, 0), start_radius_mm=4, end_radius_mm=4, flatten=(1, 1, 1.5)
    )
    assert distance(cone, 5, 0, 6) == pytest.approx(0, abs=1e-4)
    assert distance(cone, 5, 4, 0) == pytest.approx(0, abs=1e-4)


def test_a_drum_ends_at_its_plates():
    drum = Drum(centre_mm=(0, 0, 0), radii_mm=(20, 20, 10))
    assert distance(drum, 0, 0, 13) == pytest.approx(3)
    assert distance(drum, 22, 0, 0) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize(
    "solid",
    [
        Ellipsoid(centre_mm=(1, 2, 3), radii_mm=(9, 5, 3), rotation=rotation(20, 40, 60)),
        Drum(centre_mm=(1, 2, 3), radii_mm=(9, 5, 3), rotation=rotation(20, 40, 60)),
        RoundCone(
            start_mm=(0, 1, 2), end_mm=(9, 4, 5), start_radius_mm=4, end_radius_mm=2, flatten=(1, 1.4, 1)
        ),
    ],
)
def test_nothing_of_a_solid_lies_outside_its_hull(solid):
    grid = np.arange(-25, 30, 0.5, dtype=np.float32)
    z, y, x = np.meshgrid(grid, grid, grid, indexing="ij")
    inside = solid.distance(x, y, z) < 0
    points, radius = solid.hull()
    assert inside.sum() > 100
    for axis, values in enumerate((x, y, z)):
        assert values[inside].min() >= points[:, axis].min() - radius
        assert values[inside].max() <= points[:, axis].max() + radius


def test_a_smooth_path_meets_its_ends_and_interpolates_radii():
    points, radii = smooth_path([(0, 0, 0), (10, 0, 0), (20, 0, 0)], [1, 2, 3], step_mm=5)
    assert np.allclose(points, [(0, 0, 0), (5, 0, 0), (10, 0, 0), (15, 0, 0), (20, 0, 0)])
    assert np.allclose(radii, [1, 1.5, 2, 2.5, 3])


def test_a_tube_is_joined():
    pieces = tube([(0, 0, 0), (10, 10, 0), (20, 0, 5)], [4, 5, 3], step_mm=4)
    for first, second in pairwise(pieces):
        assert first.end_mm == second.start_mm
        assert first.end_radius_mm == second.start_radius_mm
