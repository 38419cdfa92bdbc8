"""The surface of a structure as triangles in space, to be looked at; distances are measured otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ct_attn.metrics.areas import closed_triangles, neighbour_codes
from ct_attn.volume import Grid, Shape3, bounding_box

#: Taubin 1995 (A signal processing approach to fair surface design): one step that shrinks, one that
#: swells, so that ripples go and volume stays.
_SHRINK, _SWELL = 0.5, -0.53


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mesh:
    """``vertices_mm`` float64 [V, 3] in RAS, ``faces`` int64 [F, 3], counterclockwise seen from outside."""

    vertices_mm: NDArray[np.float64]
    faces: NDArray[np.int64]

    @property
    def corners_mm(self) -> NDArray[np.float64]:
        """[F, 3 corners, 3]."""
        return np.asarray(self.vertices_mm[self.faces])

    @property
    def volume_mm3(self) -> float:
        """What the surface encloses, by the divergence theorem."""
        a, b, c = np.moveaxis(self.corners_mm - self._middle, 1, 0)
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    @property
    def normals(self) -> NDArray[np.float64]:
        """Unit vectors [V, 3] outwards: the mean over the triangles around, weighted by area."""
        a, b, c = np.moveaxis(self.corners_mm, 1, 0)
        of_faces = np.cross(b - a, c - a)
        sums = np.zeros_like(self.vertices_mm)
        for corner in range(3):
            for axis in range(3):
                sums[:, axis] += np.bincount(
                    self.faces[:, corner], of_faces[:, axis], minlength=len(self.vertices_mm)
                )
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.asarray(sums / np.maximum(length, 1e-12))

    @property
    def _middle(self) -> NDArray[np.float64]:
        """Far from the origin, differences of large volumes would lose digits."""
        return self.vertices_mm.mean(axis=0) if len(self.vertices_mm) else np.zeros(3)


def mesh_of(mask: NDArray[np.bool_], grid: Grid, *, step_mm: float = 2.0, smoothing: int = 12) -> Mesh:
    """The closed surface of ``mask`` [I, J, K] on ``grid``; no triangles where there is nothing.

    Voxels are first averaged over blocks of about ``step_mm``. Marching cubes (Lorensen and
    Cline 1987) puts the surface where half of a block is inside, linearly between blocks;
    ``smoothing`` rounds of Taubin's filter take the steps of the voxels away. A part that
    fills no block by half is lost.
    """
    box = bounding_box(mask)
    if box is None:
        return Mesh(vertices_mm=np.zeros((0, 3)), faces=np.zeros((0, 3), dtype=np.int64))
    i, j, k = (max(1, round(step_mm / step)) for step in grid.spacing_mm)
    shares = _shares(mask[box], (i, j, k))
    blocks, faces = _marched(shares)
    first = np.array([side.start for side in box])
    sides = np.array((i, j, k))
    # one block of padding in front, and a block's place is its middle
    vertices_mm = grid.to_mm(first + (blocks - 1) * sides + (sides - 1) / 2)
    vertices_mm = _smoothed(vertices_mm, faces, smoothing)
    mesh = Mesh(vertices_mm=vertices_mm, faces=faces)
    return mesh if mesh.volume_mm3 >= 0 else Mesh(vertices_mm=vertices_mm, faces=faces[:, ::-1].copy())


def _shares(mask: NDArray[np.bool_], sides: Shape3) -> NDArray[np.float32]:
    """How much of each block of ``sides`` voxels is inside; the last ones are filled up with outside."""
    missing = [(0, -size % side) for size, side in zip(mask.shape, sides, strict=True)]
    padded = np.pad(mask, missing)
    counts = [size // side for size, side in zip(padded.shape, sides, strict=True)]
    split = padded.reshape([n for pair in zip(counts, sides, strict=True) for n in pair])
    return np.asarray(split.mean(axis=(1, 3, 5), dtype=np.float32))


def _marched(shares: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices in (fractional) indices of ``shares`` with a block of 0 around it, and faces."""
    inside = shares > 0.5
    codes = neighbour_codes(inside)
    halves = np.array(codes.shape) * 2 + 1
    triangles = [np.zeros((0, 3), dtype=np.int64)]
    for code in np.flatnonzero(np.bincount(codes.ravel(), minlength=256)):
        table = np.array(closed_triangles()[code], dtype=np.int64).reshape(-1, 3, 3)
        if len(table):
            cells = 2 * np.argwhere(codes == code)
            points = cells[:, None, None, :] + table[None]
            triangles.append(np.ravel_multi_index(np.moveaxis(points, -1, 0), tuple(halves)).reshape(-1, 3))
    keys, faces = np.unique(np.concatenate(triangles), return_inverse=True)
    at = np.stack(np.unravel_index(keys, tuple(halves)), axis=1)
    lower, upper = at // 2, (at + 1) // 2
    padded = np.pad(shares, 1).astype(np.float64)
    below, above = padded[tuple(lower.T)], padded[tuple(upper.T)]
    share = (0.5 - below) / (above - below)
    return lower + (upper - lower) * share[:, None], faces.reshape(-1, 3).astype(np.int64)


def _smoothed(vertices_mm: NDArray[np.float64], faces: NDArray[np.int64], rounds: int) -> NDArray[np.float64]:
    """``vertices_mm`` after ``rounds`` of Taubin's filter over their neighbours."""
    if not len(faces):
        return vertices_mm
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = len(vertices_mm)
    linked = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
    linked = ((linked + linked.T) > 0).astype(np.float64)
    mean = sparse.diags(1 / np.asarray(linked.sum(axis=1)).ravel()) @ linked
    for step in (_SHRINK, _SWELL) * rounds:
        vertices_mm = vertices_mm + step * (mean @ vertices_mm - vertices_mm)
    return np.asarray(vertices_mm)
