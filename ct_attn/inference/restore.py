"""Logits on the working grid back to a mask on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ct_attn.volume import Grid, Mask

#: Slices of the scan restored at a time: memory grows with this, not with the scan.
SLAB_SLICES = 8


def restore_mask(logits: Tensor, working: Grid, scan: Grid) -> Mask:
    """The most likely class at every voxel of ``scan``, from ``logits`` [C, *working.shape].

    Logits are interpolated trilinearly at the scan's voxel centres (beyond the working
    grid's outermost centres they keep the border's value) and the largest wins, slab by
    slab, so that no array of all classes exists at the scan's size.
    """
    labels = np.empty(scan.shape, dtype=np.uint8)
    for slices, slab in _slabs(logits, working, scan):
        labels[:, :, slices] = _largest(slab).permute(1, 2, 0).cpu().numpy()
    return Mask(labels=labels, grid=scan)


def restore_values(values: Tensor, working: Grid, scan: Grid) -> NDArray[np.float32]:
    """``values`` [C, *working.shape] interpolated as above, all of them: float32 [C, *scan.shape]."""
    restored = np.empty((values.shape[0], *scan.shape), dtype=np.float32)
    for slices, slab in _slabs(values, working, scan):
        restored[..., slices] = slab.permute(0, 2, 3, 1).cpu().numpy()
    return restored


def _slabs(values: Tensor, working: Grid, scan: Grid) -> Iterator[tuple[slice, Tensor]]:
    """Slices of ``scan`` and the interpolated ``values`` there, [C, slices, I, J]."""
    mapping = np.linalg.inv(working.affine) @ scan.affine
    sample = _sample_separably if _separable(mapping) else _sample_anywhere
    for begin in range(0, scan.shape[2], SLAB_SLICES):
        end = min(begin + SLAB_SLICES, scan.shape[2])
        yield slice(begin, end), sample(values, mapping, (scan.shape[0], scan.shape[1]), begin, end)


def _largest(logits: Tensor) -> Tensor:
    """The first class [...] with the largest of ``logits`` [C, ...], as uint8.

    Class by class: ``argmax`` over the leading axis takes ten times as long on a CPU.
    """
    best = logits[0].clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=logits.device)
    for code in range(1, logits.shape[0]):
        winner.masked_fill_(logits[code] > best, code)
        torch.maximum(best, logits[code], out=best)
    return winner


def _separable(mapping: NDArray[np.float64]) -> bool:
    """Whether each working axis depends on one axis of the scan only."""
    scale = np.abs(mapping[:3, :3])
    return bool((np.sort(scale, axis=1)[:, :2] < 1e-6 * scale.max()).all())


def _sample_separably(
    logits: Tensor, mapping: NDArray[np.float64], plane: tuple[int, int], begin: int, end: int
) -> Tensor:
    """Logits at the scan's slices ``begin`` to ``end``, [C, slices, I, J], one axis after the other."""
    ranges = (np.arange(plane[0]), np.arange(plane[1]), np.arange(begin, end))
    working_axes = np.abs(mapping[:3, :3]).argmax(axis=0)  # of each axis of the scan
    remaining = [0, 1, 2]  # working axes still in ``logits``, in order
    for axis in (2, 0, 1):  # the slab first: it shrinks the work of the others
        working = int(working_axes[axis])
        positions = mapping[working, axis] * ranges[axis] + mapping[working, 3]
        at = 1 + remaining.index(working)
        first, matrix = _interpolation_matrix(positions, logits.shape[at])
        near = logits.narrow(at, first, matrix.shape[0])
        logits = torch.tensordot(near, matrix.to(logits.device), dims=([at], [0]))
        remaining.remove(working)
    return logits


def _interpolation_matrix(positions: NDArray[np.float64], size: int) -> tuple[int, Tensor]:
    """Weights [n, len(positions)] of ``n`` of ``size`` samples, and the first of them.

    Linear between samples, held at both ends.
    """
    held = np.clip(positions, 0, size - 1)
    lower = held.astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    first = int(lower.min())
    matrix = np.zeros((int(upper.max()) - first + 1, len(positions)), dtype=np.float32)
    columns = np.arange(len(positions))
    matrix[lower - first, columns] += 1 - (held - lower)
    matrix[upper - first, columns] += held - lower
    return first, torch.from_numpy(matrix)


def _sample_anywhere(
    logits: Tensor, mapping: NDArray[np.float64], plane: tuple[int, int], begin: int, end: int
) -> Tensor:
    """As :func:`_sample_separably`, for any pair of grids (a sheared scan, say)."""
    k, i, j = np.meshgrid(np.arange(begin, end), np.arange(plane[0]), np.arange(plane[1]), indexing="ij")
    positions = np.stack([i, j, k], axis=-1) @ mapping[:3, :3].T + mapping[:3, 3]
    sizes = np.array(logits.shape[1:])
    normalised = (2 * positions + 1) / sizes - 1  # grid_sample's coordinates with align_corners off
    grid = torch.from_numpy(normalised[..., ::-1].astype(np.float32))[None].to(logits.device)
    return functional.grid_sample(logits[None], grid, padding_mode="border", align_corners=False)[0]
