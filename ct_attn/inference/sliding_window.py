"""Whole volumes through a network that sees patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from ct_attn.volume import Shape3

#: Standard deviation of the blending weight in patch sides, as MONAI and nnU-Net take it.
GAUSSIAN_SIGMA = 0.125

Predict = Callable[[Tensor], Tensor]


def sliding_window_logits(
    predict: Predict,
    image: Tensor,
    *,
    patch_size: Shape3,
    overlap: float,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Logits float32 [C, I, J, K] of ``image`` [I, J, K].

    ``predict`` maps a patch [1, 1, *patch_size] to logits [1, C, *patch_size]. Windows
    overlap by the fraction ``overlap`` of their side and are averaged with a Gaussian
    weight around their centre. A volume smaller than a patch is padded with zeros (the
    image's lowest value) on both sides. ``on_window`` hears of windows done and in all.
    """
    padded, inner = _pad_to(image, patch_size)
    starts = list(window_starts(_size(padded), patch_size, overlap))
    weight = gaussian_weight(patch_size).to(image.device)
    logits: Tensor | None = None
    weights = torch.zeros(_size(padded), device=image.device)
    for done, start in enumerate(starts, start=1):
        window = tuple(slice(begin, begin + side) for begin, side in zip(start, patch_size, strict=True))
        patch_logits = predict(padded[window][None, None])[0].float()
        if logits is None:
            logits = torch.zeros((patch_logits.shape[0], *_size(padded)), device=image.device)
        logits[(slice(None), *window)] += patch_logits * weight
        weights[window] += weight
        on_window(done, len(starts))
    assert logits is not None  # there is always a window
    return (logits / weights)[(slice(None), *inner)]


def window_starts(size: Shape3, patch_size: Shape3, overlap: float) -> Iterator[Shape3]:
    """The first voxel of every window, in order, so that windows cover ``size``.

    Along each axis the step is ``patch * (1 - overlap)``, at least one voxel; the last
    window is moved back to end with the volume.
    """
    axes = []
    for length, side in zip(size, patch_size, strict=True):
        step = max(1, int(side * (1 - overlap)))
        count = max(0, -(-(length - side) // step)) + 1
        axes.append([min(index * step, length - side) for index in range(count)])
    yield from product(axes[0], axes[1], axes[2])


def gaussian_weight(patch_size: Shape3) -> Tensor:
    """The weight of each voxel of a window, [*patch_size], largest at the centre and above 0."""
    weight = torch.ones(patch_size)
    for axis, side in enumerate(patch_size):
        position = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        profile = torch.exp(-0.5 * (position / (GAUSSIAN_SIGMA * side)) ** 2)
        shape = [1, 1, 1]
        shape[axis] = side
        weight = weight * profile.reshape(shape)
    return weight.clamp(min=1e-3)


def _pad_to(image: Tensor, patch_size: Shape3) -> tuple[Tensor, tuple[slice, ...]]:
    """``image`` of at least ``patch_size``, and where the original lies in it."""
    padding: list[int] = []
    inner: list[slice] = []
    for length, side in zip(image.shape, patch_size, strict=True):
        missing = max(0, side - length)
        before = missing // 2
        padding = [before, missing - before, *padding]  # functional.pad counts from the last axis
        inner.append(slice(before, before + length))
    return functional.pad(image, padding), tuple(inner)


def _size(image: Tensor) -> Shape3:
    i, j, k = image.shape
    return int(i), int(j), int(k)
