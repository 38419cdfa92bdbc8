"""Surfaces to look at: closed, in mm, and about as large as the voxels they are of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.metrics.mesh import Mesh, mesh_of
from ct_attn.volume import Grid
from tests.unit.grids import SOME_CODES, grid_of, oblique_grids, voxel_centres_mm


def ball(grid: Grid, radius_mm: float, centre_mm=None) -> np.ndarray:
    centre_mm = grid.centre_mm if centre_mm is None else centre_mm
    return np.linalg.norm(voxel_centres_mm(grid) - centre_mm, axis=-1) < radius_mm


def directed_edges(mesh: Mesh) -> np.ndarray:
    return np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])


def is_closed(mesh: Mesh) -> bool:
    """Every edge is gone along as often one way as the other, by the triangles on its sides."""
    edges, counts = np.unique(directed_edges(mesh), axis=0, return_counts=True)
    there = {tuple(edge): count for edge, count in zip(edges.tolist(), counts, strict=True)}
    return all(there.get((b, a)) == count for (a, b), count in there.items())


@given(grid=oblique_grids(fewest=4, most=8), seed=st.integers(0, 1000), step_mm=st.sampled_from([0.1, 3.0]))
def test_the_surface_of_any_mask_is_closed(grid, seed, step_mm):
    mask = np.random.default_rng(seed).random(grid.shape) < 0.5
    mesh = mesh_of(mask, grid, step_mm=step_mm)
    assert is_closed(mesh)
    assert mesh.volume_mm3 >= 0


@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (2.0, 2.0, 2.0)])
def test_the_surface_of_a_ball_has_its_place_and_size(code, spacing_mm):
    size = tuple(int(64 / step) for step in spacing_mm)
    grid = grid_of(code, size=size, spacing_mm=spacing_mm, angles=(0.2, -0.1, 0.3), centre_mm=(40, -300, 900))
    centre_mm = grid.centre_mm + np.array([5, -3, 2])
    mask = ball(grid, 20, centre_mm)
    mesh = mesh_of(mask, grid)
    assert mesh.volume_mm3 == pytest.approx(mask.sum() * grid.voxel_volume_mm3, rel=0.03)
    distance = np.linalg.norm(mesh.vertices_mm - centre_mm, axis=1)
    assert distance.mean() == pytest.approx(20, abs=0.3)
    assert np.abs(distance - 20).max() < 1.5
    outwards = (mesh.vertices_mm - centre_mm) / distance[:, None]
    assert (np.einsum("ij,ij->i", mesh.normals, outwards) > 0.8).all()


def test_a_box_keeps_its_volume():
    grid = grid_of(size=(40, 40, 30), spacing_mm=(1.0, 1.2, 1.5))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[5:33, 6:30, 4:25] = True
    assert mesh_of(mask, grid).volume_mm3 == pytest.approx(mask.sum() * grid.voxel_volume_mm3, rel=0.03)


def test_smoothing_takes_the_steps_of_thick_slices_away():
    grid = grid_of(size=(64, 64, 16), spacing_mm=(1.0, 1.0, 4.0))
    mask = ball(grid, 20)

    def roughness(smoothing):
        distance = np.linalg.norm(mesh_of(mask, grid, smoothing=smoothing).vertices_mm, axis=1)
        return float(distance.std())

    assert roughness(12) < 0.6 * roughness(0)


def test_what_ends_with_the_scan_is_closed_there():
    grid = grid_of(size=(10, 10, 10))
    mesh = mesh_of(np.ones(grid.shape, dtype=bool), grid, step_mm=1, smoothing=0)
    assert is_closed(mesh)
    assert mesh.volume_mm3 == pytest.approx(1000, rel=0.08)  # corners and edges are cut


def test_nothing_has_no_surface():
    grid = grid_of()
    mesh = mesh_of(np.zeros(grid.shape, dtype=bool), grid)
    assert mesh.faces.shape == (0, 3)
    assert mesh.volume_mm3 == 0
    assert mesh.normals.shape == (0, 3)
