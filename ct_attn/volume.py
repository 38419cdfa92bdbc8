"""Arrays that know where they are: a voxel grid in space, a CT on it, a mask on it.

World coordinates are RAS millimetres (x grows to the patient's right-to-left
"R", y to anterior, z to superior), as in NIfTI.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ct_attn.errors import UserError

Shape3 = tuple[int, int, int]
Spacing3 = tuple[float, float, float]
T = TypeVar("T")

#: From coordinates to the patient's left, posterior and superior (DICOM, ITK) to ours.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

#: Two grids are the same when no corner voxel lies further apart than this.
SAME_GRID_TOLERANCE_MM = 1e-2


def in_order(sides: tuple[T, T, T], order: Shape3) -> tuple[T, T, T]:
    """Those of ``sides`` that belong to the axes ``order``."""
    return sides[order[0]], sides[order[1]], sides[order[2]]


def size_of(box: tuple[slice, slice, slice]) -> Shape3:
    """How many voxels ``box`` is long along each axis."""
    i, j, k = (side.stop - side.start for side in box)
    return i, j, k


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels of an array [I, J, K] lie in the patient.

    ``affine`` is float64 4x4 and maps the voxel index (i, j, k, 1), which names a
    voxel's centre, to RAS mm. Raises ``ValueError`` when the shape is not three
    positive sizes or the affine is not a finite, invertible 4x4 matrix.
    """

    shape: Shape3
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"a grid has three sizes of at least 1, got {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("an affine is a finite 4x4 matrix")
        if not np.array_equal(affine[3], (0, 0, 0, 1)) or abs(np.linalg.det(affine)) < 1e-12:
            raise ValueError("an affine ends in the row 0 0 0 1 and is invertible")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> Spacing3:
        """Distance between neighbouring voxel centres along i, j and k."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors (columns) along i, j and k in RAS."""
        return np.asarray(self.affine[:3, :3] / np.array(self.spacing_mm))

    @property
    def is_orthogonal(self) -> bool:
        """Whether the three axes are at right angles (oblique grids may be)."""
        directions = self.directions
        return bool(np.allclose(directions.T @ directions, np.eye(3), atol=1e-4))

    @property
    def orientation(self) -> str:
        """The closest anatomical direction of each axis, such as ``"RAS"`` or ``"LPS"``."""
        codes = ["", "", ""]
        weight = np.abs(self.directions)
        for _ in range(3):
            world, axis = np.unravel_index(np.argmax(weight), weight.shape)
            positive = self.directions[world, axis] > 0
            codes[axis] = ("LR", "PA", "IS")[world][int(positive)]
            weight[world, :] = -1
            weight[:, axis] = -1
        return "".join(codes)

    @property
    def axial_axis(self) -> int:
        """The axis that runs nearest to superior or inferior: axial slices lie across it."""
        return next(axis for axis, code in enumerate(self.orientation) if code in "SI")

    @property
    def corners_mm(self) -> NDArray[np.float64]:
        """RAS mm of the eight corner voxels' centres, [8, 3]."""
        last = [size - 1 for size in self.shape]
        corners = np.array(list(product(*((0, end) for end in last))), dtype=np.float64)
        return self.to_mm(corners)

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """RAS mm of the middle of the grid, [3]."""
        return self.to_mm((np.array(self.shape) - 1) / 2)

    def ordered(self, order: Shape3) -> Grid:
        """The same voxels where axis ``order[n]`` is called n."""
        columns = self.affine[:, [*order, 3]]
        return Grid(shape=in_order(self.shape, order), affine=columns)

    def to_mm(self, voxels: NDArray[Any]) -> NDArray[np.float64]:
        """RAS mm [..., 3] of (fractional) voxel indices [..., 3]."""
        return np.asarray(voxels @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_voxels(self, points_mm: NDArray[Any]) -> NDArray[np.float64]:
        """Fractional voxel indices [..., 3] of RAS mm points [..., 3]."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points_mm @ inverse[:3, :3].T + inverse[:3, 3])

    def is_same_as(self, other: Grid, tolerance_mm: float = SAME_GRID_TOLERANCE_MM) -> bool:
        """Whether both have the same shape and put every voxel at the same place."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners_mm - other.corners_mm).max() <= tolerance_mm)

    def describe(self) -> str:
        """One line for people: sizes, spacing and orientation."""
        sizes = " x ".join(str(size) for size in self.shape)
        spacing = " x ".join(f"{step:.3g}" for step in self.spacing_mm)
        return f"{sizes} voxels of {spacing} mm, {self.orientation}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """A CT scan: ``hu`` int16 or float32 [I, J, K] in Hounsfield units on ``grid``."""

    hu: NDArray[np.int16] | NDArray[np.float32]
    grid: Grid

    def __post_init__(self) -> None:
        if self.hu.dtype not in (np.int16, np.float32):
            raise ValueError(f"HU are int16 or float32, got {self.hu.dtype}")
        _require_shape(self.hu, self.grid)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """A label map: ``labels`` uint8 [I, J, K] on ``grid``, 0 for background."""

    labels: NDArray[np.uint8]
    grid: Grid

    def __post_init__(self) -> None:
        if self.labels.dtype != np.uint8:
            raise ValueError(f"labels are uint8, got {self.labels.dtype}")
        _require_shape(self.labels, self.grid)


def bounding_box(
    content: NDArray[np.bool_] | NDArray[np.uint8],
) -> tuple[slice, slice, slice] | None:
    """The smallest box around what is not 0 in ``content`` [I, J, K]; None where there is nothing."""
    box = []
    for axis in range(3):
        present = np.flatnonzero(content.max(axis=tuple({0, 1, 2} - {axis}), initial=0))
        if not present.size:
            return None
        box.append(slice(int(present[0]), int(present[-1]) + 1))
    i, j, k = box
    return i, j, k


def require_same_grid(first: Grid, second: Grid, *, subject: str, than: str) -> None:
    """Raise :class:`UserError` unless both grids are the same.

    ``subject`` names the file to complain about, ``than`` the file it must match.
    """
    if first.is_same_as(second):
        return
    found = first.describe()
    if first.shape == second.shape:
        shift_mm = np.abs(first.corners_mm - second.corners_mm).max()
        found += f" (up to {shift_mm:.3g} mm elsewhere)"
    raise UserError(
        subject,
        expected=f"the grid of {than} ({second.describe()})",
        found=found,
        remedy="give a file made for that scan",
    )


def _require_shape(array: NDArray[Any], grid: Grid) -> None:
    if array.shape != grid.shape:
        raise ValueError(f"array {array.shape} does not fit its grid {grid.shape}")
