"""Surfaces in a picture: which way they lie, which organ is in front, and their light."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ct_attn.metrics.mesh import mesh_of
from ct_attn.report.surfaces import FRONT, LEFT_BACK, Camera, draw_surfaces, frame_mm
from ct_attn.volume import Grid

RED, BLUE = "#ff0000", "#0000ff"


def block(low, high):
    """A box in RAS mm, of 40 voxels of 3 mm each way."""
    grid = Grid(shape=(40, 40, 40), affine=np.diag([3.0, 3.0, 3.0, 1.0]))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mesh_of(mask, grid)


def picture(meshes, camera) -> np.ndarray:
    figure = Figure(figsize=(2, 2), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    draw_surfaces(axes, meshes, {"a": RED, "b": BLUE}, camera)
    left, right, bottom, top = frame_mm(list(meshes.values()), camera)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def places(pixels, channel):
    """Mean row and column of what is painted in red (0) or blue (2)."""
    rows, columns = np.nonzero(pixels[..., channel] > pixels[..., 2 - channel] + 60)
    return (rows.mean(), columns.mean()) if rows.size else None


@pytest.mark.parametrize(
    "camera", [FRONT, LEFT_BACK, Camera(name="above", azimuth_degrees=30, elevation_degrees=70)]
)
def test_the_pictures_axes_are_at_right_angles_and_not_mirrored(camera):
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.axes) == pytest.approx(1)


def test_from_the_front_the_right_is_on_the_left_and_superior_on_top():
    right_and_up, left_and_down = block((28, 15, 28), (36, 25, 36)), block((4, 15, 4), (12, 25, 12))
    level = Camera(name="level", azimuth_degrees=0, elevation_degrees=0)
    shown = picture({"a": right_and_up, "b": left_and_down}, level)
    (red_row, red_column), (blue_row, blue_column) = places(shown, 0), places(shown, 2)
    assert red_row < blue_row
    assert red_column < blue_column
    behind = picture({"a": right_and_up, "b": left_and_down}, Camera(name="", azimuth_degrees=180))
    assert places(behind, 0)[1] > places(behind, 2)[1]


def test_what_is_nearer_hides_what_is_behind_it():
    anterior, posterior = block((10, 25, 10), (30, 35, 30)), block((12, 5, 12), (28, 15, 28))
    level = {"elevation_degrees": 0.0}
    front = picture({"a": anterior, "b": posterior}, Camera(name="", azimuth_degrees=0, **level))
    assert places(front, 2) is None
    back = picture({"a": anterior, "b": posterior}, Camera(name="", azimuth_degrees=180, **level))
    assert places(back, 2) is not None


def test_a_box_is_as_wide_and_high_as_it_is():
    mesh = block((10, 10, 10), (30, 20, 26))
    left, right, bottom, top = frame_mm([mesh], Camera(name="", azimuth_degrees=0, elevation_degrees=0), 0)
    assert right - left == pytest.approx(60, abs=2)
    assert top - bottom == pytest.approx(48, abs=2)


def test_faces_towards_the_light_are_brighter():
    grid = Grid(shape=(40, 40, 40), affine=np.diag([3.0, 3.0, 3.0, 1.0]))
    distance = np.linalg.norm(np.argwhere(np.ones(grid.shape)) - 19.5, axis=1).reshape(grid.shape)
    shown = picture({"a": mesh_of(distance < 15, grid)}, FRONT)[..., 0]
    assert shown[70, 70] > shown[130, 130] + 30


def test_nothing_is_drawn_of_nothing():
    empty = block((0, 0, 0), (0, 0, 0))
    assert (picture({"a": empty}, FRONT) == 255).all()
