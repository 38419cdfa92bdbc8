"""Scan grids of every kind: any orientation code, oblique, sheared."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from hypothesis import strategies as st

from ct_attn.volume import Grid

WORLD = ("LR", "PA", "IS")

#: All 48 ways a scan's axes can run along the patient's.
CODES = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(WORLD)
    for signs in product((0, 1), repeat=3)
]

#: A few that between them flip and exchange every axis.
SOME_CODES = ["RAS", "LPS", "ASR", "PIL", "SLA"]


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Turned about x, then y, then z (radians)."""
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[[a, b], [a, b]] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        turned = turn @ turned
    return turned


def grid_of(
    code="RAS",
    *,
    size=(12, 14, 10),
    spacing_mm=(1.0, 1.0, 1.0),
    angles=(0, 0, 0),
    shear=0.0,
    centre_mm=(0, 0, 0),
) -> Grid:
    """A grid whose voxels are the same for every ``code``, in another order.

    ``size`` and ``spacing_mm`` are along R, A and S (before turning by ``angles``);
    ``shear`` tilts S towards A, as a gantry does.
    """
    world = rotation(angles) @ np.array([[1, 0, 0], [0, 1, shear], [0, 0, 1]]) * spacing_mm
    axes = [next(axis for axis, pair in enumerate(WORLD) if letter in pair) for letter in code]
    shape = tuple(size[axis] for axis in axes)
    affine = np.eye(4)
    affine[:3, :3] = world[:, axes] * [1 if letter in "RAS" else -1 for letter in code]
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape=shape, affine=affine)


def voxel_centres_mm(grid: Grid) -> np.ndarray:
    """RAS mm of every voxel, [I, J, K, 3]."""
    indices = np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij")
    return grid.to_mm(np.stack(indices, axis=-1))


@st.composite
def oblique_grids(draw, *, fewest=8, most=20) -> Grid:
    """Grids of any orientation, anisotropic and turned, far from the origin."""
    return grid_of(
        draw(st.sampled_from(CODES)),
        size=tuple(draw(st.integers(fewest, most)) for _ in range(3)),
        spacing_mm=tuple(draw(st.floats(0.5, 5)) for _ in range(3)),
        angles=tuple(draw(st.floats(-0.4, 0.4)) for _ in range(3)),
        centre_mm=tuple(draw(st.floats(-800, 800)) for _ in range(3)),
    )
