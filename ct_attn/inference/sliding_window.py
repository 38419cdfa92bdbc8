"""Whole prepared volumes through a network that sees patches, as tensors: training's validation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ct_attn.inference.blending import blended
from ct_attn.inference.windows import gaussian_weight, plan_slices, window_starts
from ct_attn.recipe import Recipe
from ct_attn.volume import Shape3

Predict = Callable[[Tensor], Tensor]


def over_windows(network: Predict, image: Tensor, recipe: Recipe, *, n_values: int) -> Tensor:
    """The ``n_values`` maps that ``network`` makes of ``image`` [I, J, K], prepared as ``recipe`` says.

    Float32 [n_values, I, J, K], from windows of volumes or of slices.
    """
    patch, overlap = recipe.training.patch_size, recipe.inference.overlap
    if recipe.slices is None:
        return sliding_window_logits(network, image, patch_size=patch, overlap=overlap)

    def members(window: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        values = network(torch.from_numpy(window)[None, None].to(image.device))[0]
        return [values.float().cpu().numpy()]

    i, j, k = image.shape
    plan = plan_slices((i, j, k), patch, overlap, recipe.slices)
    slabs = blended(members, image.cpu().numpy(), plan, n_classes=n_values)
    return torch.from_numpy(np.concatenate([slab.values.copy() for slab in slabs], axis=3)).to(image.device)


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
    weight = torch.from_numpy(gaussian_weight(patch_size)).to(image.device)
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
