"""Whole volumes through a network that sees patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from ct_attn.recipe import Recipe
from ct_attn.volume import Shape3

#: Standard deviation of the blending weight in patch sides, as MONAI and nnU-Net take it.
GAUSSIAN_SIGMA = 0.125

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """The ``axis`` across slices, of each of which ``halo`` slices on either side are seen."""

    axis: int
    halo: int


def sliding_window_logits(
    predict: Predict,
    image: Tensor,
    *,
    patch_size: Shape3,
    overlap: float,
    across: Across | None = None,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Logits float32 [C, I, J, K] of ``image`` [I, J, K].

    ``predict`` maps a patch [1, 1, *patch_size] to logits [1, C, *patch_size]. Windows
    overlap by the fraction ``overlap`` of their side and are averaged with a Gaussian
    weight around their centre. A volume smaller than a patch is padded with zeros (the
    image's lowest value) on both sides. Along the axis ``across`` slices that a network
    takes one by one, windows share what is neighbours to both and no more, and a slice
    counts where it has its neighbours. ``on_window`` hears of windows done and in all.
    """
    padded, inner = _pad_to(image, patch_size)
    starts = list(window_starts(_size(padded), patch_size, overlap, across))
    weight = _blending_weight(patch_size, across).to(image.device)
    logits: Tensor | None = None
    weights = torch.zeros(_size(padded), device=image.device)
    for done, start in enumerate(starts, start=1):
        window = tuple(slice(begin, begin + side) for begin, side in zip(start, patch_size, strict=True))
        patch_logits = predict(padded[window][None, None])[0].float()
        window, part = _with_neighbours(window, _size(padded), across)
        if logits is None:
            logits = torch.zeros((patch_logits.shape[0], *_size(padded)), device=image.device)
        logits[(slice(None), *window)] += patch_logits[(slice(None), *part)] * weight[part]
        weights[window] += weight[part]
        on_window(done, len(starts))
    assert logits is not None  # there is always a window
    return (logits / weights)[(slice(None), *inner)]


def over_windows(
    network: Predict,
    image: Tensor,
    recipe: Recipe,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """What ``network`` makes of ``image`` [I, J, K], prepared as ``recipe`` says: float32 [C, I, J, K].

    A window of a network of slices holds as many as are to be predicted at a time, and
    their neighbours.
    """
    sides = list(recipe.training.patch_size)
    across = None
    if recipe.slices is not None:
        axis, halo = recipe.slices.axis, recipe.slices.halo
        sides[axis] = min(recipe.slices.at_a_time + 2 * halo, image.shape[axis])
        across = Across(axis=axis, halo=halo)
    return sliding_window_logits(
        network,
        image,
        patch_size=(sides[0], sides[1], sides[2]),
        overlap=recipe.inference.overlap,
        across=across,
        on_window=on_window,
    )


def window_starts(
    size: Shape3, patch_size: Shape3, overlap: float, across: Across | None = None
) -> Iterator[Shape3]:
    """The first voxel of every window, in order, so that windows cover ``size``.

    Along each axis the step is ``patch * (1 - overlap)``, at least one voxel; the last
    window is moved back to end with the volume.
    """
    axes = []
    for axis, (length, side) in enumerate(zip(size, patch_size, strict=True)):
        step = max(1, int(side * (1 - overlap)))
        if across is not None and axis == across.axis:
            step = max(1, side - 2 * across.halo)
        count = max(0, -(-(length - side) // step)) + 1
        axes.append([min(index * step, length - side) for index in range(count)])
    yield from product(axes[0], axes[1], axes[2])


def _with_neighbours(
    window: tuple[slice, ...], size: Shape3, across: Across | None
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of ``window`` whose slices have their neighbours in it, in the volume and in the window."""
    part = [slice(0, place.stop - place.start) for place in window]
    if across is None:
        return window, tuple(part)
    place = window[across.axis]
    # At the volume's ends there is nothing beyond.
    begin = place.start + (across.halo if place.start > 0 else 0)
    end = place.stop - (across.halo if place.stop < size[across.axis] else 0)
    kept = list(window)
    kept[across.axis] = slice(begin, end)
    part[across.axis] = slice(begin - place.start, end - place.start)
    return tuple(kept), tuple(part)


def _blending_weight(patch_size: Shape3, across: Across | None) -> Tensor:
    """The weight of each voxel of a window; slices that are taken one by one weigh the same."""
    sides = list(patch_size)
    if across is not None:
        sides[across.axis] = 1
    return gaussian_weight((sides[0], sides[1], sides[2])).expand(patch_size)


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
