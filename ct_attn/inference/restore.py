"""Logits on the working grid back to a mask on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn.inference.agreement import largest
from ct_attn.inference.blending import CERTAIN
from ct_attn.interpolation import interpolation_weights, is_separable
from ct_attn.volume import Grid, Mask, size_of

#: Slices of the scan restored at a time: memory grows with this, not with the scan.
SLAB_SLICES = 16

#: Sides of the squares in which a mask is restored, in voxels of the working grid.
TILE = 12

Values = NDArray[np.float32]


def restore_mask(logits: Values, working: Grid, scan: Grid) -> Mask:
    """The most likely class at every voxel of ``scan``, from ``logits`` [C, *working.shape].

    Logits are interpolated trilinearly at the scan's voxel centres (beyond the working
    grid's outermost centres they keep the border's value) and the largest wins.
    """
    restorer = Restorer(working, scan)
    restorer.add(0, logits)
    return restorer.mask()


def restore_values(values: Values, working: Grid, scan: Grid) -> Values:
    """``values`` [C, *working.shape] interpolated as above, all of them: float32 [C, *scan.shape]."""
    restorer = Restorer(working, scan, n_values=len(values), mask=False)
    restorer.add(0, values)
    return restorer.values


class Restorer:
    """Takes slabs of logits by rising slice, and restores what lies between them.

    ``box``: the part of the working grid that the logits are of; beyond it there is class
    0, unless the working grid ends there too. With ``n_values``, the first so many values
    are kept as well, float32 [n_values, *scan.shape], after ``transform``. Slices that the
    rest of the scan does not need are let go.
    """

    def __init__(
        self,
        working: Grid,
        scan: Grid,
        *,
        box: tuple[slice, slice, slice] | None = None,
        n_values: int = 0,
        mask: bool = True,
        softmax: bool = False,
        sigmoid: bool = False,
    ) -> None:
        self.scan = scan
        self.mapping = np.linalg.inv(working.affine) @ scan.affine
        i, j, k = (slice(0, size) for size in working.shape)
        self.box = (i, j, k) if box is None else box
        self.mapping[:3, 3] -= [side.start for side in self.box]
        self.size = size_of(self.box)
        #: How far a scan's voxel may lie beyond the box's outermost centres and still have their value.
        self.reach = np.array(
            [
                (np.inf if side.start == 0 else 0.5, np.inf if side.stop == size else 0.5)
                for side, size in zip(self.box, working.shape, strict=True)
            ]
        )
        # The scan's axis that runs most along the working grid's slices, in mm: voxels may be long otherwise.
        self.axis = int(np.abs(self.mapping[2, :3] / scan.spacing_mm).argmax())
        self.pending = list(self._ranges())
        self.labels = np.zeros(scan.shape if mask else (0, 0, 0), dtype=np.uint8, order="F")
        self.values = np.zeros((n_values, *(scan.shape if n_values else (0, 0, 0))), dtype=np.float32)
        self.softmax = softmax
        self.sigmoid = sigmoid
        self.held: Values | None = None
        self.first = 0

    def _ranges(self) -> Iterator[tuple[int, float, float]]:
        """Each slice of the scan and the working slices it reaches from and to, by rising slice."""
        across = [axis for axis in range(3) if axis != self.axis]
        ends = [self.mapping[2, axis] * (self.scan.shape[axis] - 1) for axis in across]
        low, high = sum(min(0.0, end) for end in ends), sum(max(0.0, end) for end in ends)
        slices = range(self.scan.shape[self.axis])
        for index in slices if self.mapping[2, self.axis] > 0 else reversed(slices):
            at = self.mapping[2, self.axis] * index + self.mapping[2, 3]
            yield index, at + low, at + high

    def add(self, first: int, values: Values) -> None:
        """``values`` [C, I, J, n] of the box's slices from ``first`` on, where the last ones ended."""
        self.held = values if self.held is None else np.concatenate([self.held, values], axis=3)
        end = first + values.shape[3]
        last = end == self.size[2]
        ready = 0
        while ready < len(self.pending) and (last or self.pending[ready][2] <= end - 1):
            ready += 1
        for begin in range(0, ready, SLAB_SLICES):
            self._restore(self.pending[begin : min(begin + SLAB_SLICES, ready)])
        self.pending = self.pending[ready:]
        needed = int(np.floor(min((low for _, low, _ in self.pending), default=end)))
        drop = int(np.clip(needed - self.first, 0, self.held.shape[3] - 1))
        self.held = self.held[..., drop:].copy()  # ``values`` are good until the next slab only
        self.first += drop

    def mask(self) -> Mask:
        """What has been restored."""
        return Mask(labels=self.labels, grid=self.scan)

    def _restore(self, slices: list[tuple[int, float, float]]) -> None:
        assert self.held is not None
        reached = [self._clip(low) for _, low, _ in slices] + [self._clip(high) for _, _, high in slices]
        begin, end = int(np.floor(min(reached))), int(np.ceil(max(reached))) + 1
        near = self.held[..., begin - self.first : end - self.first]
        indices = np.sort([index for index, _, _ in slices])
        restore = self._separably if is_separable(self.mapping) else self._anywhere
        restore(near, begin, int(indices[0]), int(indices[-1]) + 1)

    def _clip(self, position: float) -> float:
        return float(np.clip(position, self.first, self.size[2] - 1))

    def _separably(self, near: Values, first: int, begin: int, end: int) -> None:
        """Slices ``begin`` to ``end`` of the scan from ``near`` [C, I, J, n], slices from ``first`` on."""
        axes = [int(axis) for axis in np.abs(self.mapping[:3, :3]).argmax(axis=1)]  # of the scan
        spans = [(0, size) for size in self.scan.shape]
        spans[self.axis] = (begin, end)
        along = []
        for working, axis in enumerate(axes):
            start, stop = spans[axis]
            at = self.mapping[working, axis] * np.arange(start, stop) + self.mapping[working, 3]
            low, high = self.reach[working]
            within = np.flatnonzero((at >= -low) & (at <= self.size[working] - 1 + high))
            if not within.size:
                return
            along.append((at[within[0] : within[-1] + 1], start + int(within[0])))
        depth = interpolation_weights(along[2][0] - first, near.shape[3])
        labels = None if self.values.size else largest(near)
        for tile_i, scan_i in _tiles(along[0][0], near.shape[1]):
            for tile_j, scan_j in _tiles(along[1][0], near.shape[2]):
                place = self._place(axes, along, scan_i, scan_j)
                if labels is not None and _unanimous(labels[tile_i, tile_j]):
                    code = labels[tile_i.start, tile_j.start, 0]
                    if code:
                        self.labels[place] = code
                    continue
                sampled = near[:, tile_i, tile_j] @ depth.T
                at_j = interpolation_weights(along[1][0][scan_j] - tile_j.start, sampled.shape[2])
                sampled = at_j @ sampled
                at_i = interpolation_weights(along[0][0][scan_i] - tile_i.start, sampled.shape[1])
                shape = sampled.shape
                flat = at_i @ sampled.reshape(shape[0], shape[1], -1)
                self._keep(flat.reshape(shape[0], len(at_i), *shape[2:]), place, axes)

    def _place(
        self,
        axes: list[int],
        along: list[tuple[NDArray[np.float64], int]],
        scan_i: slice,
        scan_j: slice,
    ) -> tuple[slice, ...]:
        place = [slice(0)] * 3
        depth = slice(0, len(along[2][0]))
        for axis, (_, offset), part in zip(axes, along, (scan_i, scan_j, depth), strict=True):
            place[axis] = slice(part.start + offset, part.stop + offset)
        return tuple(place)

    def _keep(self, sampled: Values, place: tuple[slice, ...], axes: list[int]) -> None:
        """Write ``sampled`` [C, i, j, k], whose axes are the scan's ``axes``, to ``place``."""
        order = [axes.index(axis) for axis in range(3)]
        if self.labels.size:
            self.labels[place] = largest(sampled).transpose(order)
        if self.values.size:
            kept = _softmax(sampled) if self.softmax else _sigmoid(sampled) if self.sigmoid else sampled
            kept = kept[len(kept) - len(self.values) :]
            self.values[(slice(None), *place)] = kept.transpose(0, *(1 + axis for axis in order))

    def _anywhere(self, near: Values, first: int, begin: int, end: int) -> None:
        """As :meth:`_separably`, for any pair of grids (a sheared scan, say)."""
        for index in range(begin, end):
            sides = [np.arange(size) for size in self.scan.shape]
            sides[self.axis] = np.array([index])
            grid = np.meshgrid(*sides, indexing="ij", sparse=True)
            at = np.stack(np.broadcast_arrays(*(_linear(row, grid) for row in self.mapping[:3])))
            beyond = np.zeros(at.shape[1:], dtype=bool)
            for axis, (low, high) in enumerate(self.reach):
                beyond |= (at[axis] < -low) | (at[axis] > self.size[axis] - 1 + high)
            at[2] -= first
            sampled = np.stack(
                [ndimage.map_coordinates(values, at, order=1, mode="nearest") for values in near]
            )
            if beyond.any():
                sampled[:, beyond] = 0
                sampled[0, beyond] = CERTAIN
            place = [slice(0, size) for size in self.scan.shape]
            place[self.axis] = slice(index, index + 1)
            self._keep(sampled, tuple(place), [0, 1, 2])


def _linear(row: NDArray[np.float64], grid: tuple[NDArray[np.intp], ...]) -> NDArray[np.float64]:
    return np.asarray(row[0] * grid[0] + row[1] * grid[1] + (row[2] * grid[2] + row[3]))


def _tiles(at: NDArray[np.float64], size: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of ``size`` samples, and which of the rising or falling positions ``at`` lie in each.

    A piece ends with the sample the next begins with, so that all that a position is
    interpolated from is in its piece.
    """
    rising = at if at[-1] >= at[0] else at[::-1]
    edges = [*range(0, max(1, size - 1), TILE), max(1, size - 1)]
    for begin, end in pairwise(edges):
        low = 0 if begin == 0 else int(np.searchsorted(rising, begin, side="left"))
        high = len(rising) if end == edges[-1] else int(np.searchsorted(rising, end, side="left"))
        if low == high:
            continue
        inside = slice(low, high) if rising is at else slice(len(at) - high, len(at) - low)
        yield slice(begin, min(end + 1, size)), inside


def _unanimous(labels: NDArray[np.uint8]) -> bool:
    """Whether one class is the most likely at every corner there is.

    Then it is in between as well: every voxel is a mean of the corners with weights that
    are the same for all classes, and neither products with a positive number nor sums
    change, when rounded, which of two classes is the larger.
    """
    return bool((labels == labels.flat[0]).all())


def _softmax(logits: Values) -> Values:
    raised = np.exp(logits - logits.max(axis=0))
    return np.asarray(raised / raised.sum(axis=0))


def _sigmoid(logits: Values) -> Values:
    """Of every class for itself; background's logit is 0, or certain where nobody looked."""
    return np.asarray(1 / (1 + np.exp(np.clip(logits[:1] - logits, -80, 80))), dtype=np.float32)
