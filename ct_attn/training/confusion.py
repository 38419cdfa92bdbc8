"""Voxels of each target in truth and prediction, counted where they are, and the ratios made of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import torch
from torch import Tensor

from ct_attn.loss_config import LossConfig
from ct_attn.metrics import Overlap
from ct_attn.report.run_page import RATIOS


def predicted_labels(outputs: Tensor, config: LossConfig) -> Tensor:
    """The masks uint8 [B, ...] that a network's ``outputs`` [B, C, ...] stand for.

    Of every voxel the class of the largest logit, the first of equal ones; with sigmoids
    the target of the largest logit above 0, else background. ``argmax`` over channels takes
    six times as long on a processor.
    """
    channels = list(outputs.unbind(1))
    if config.activation == "sigmoid":
        channels.insert(0, torch.zeros_like(channels[0]))
    largest = channels[0]
    labels = torch.zeros_like(largest, dtype=torch.uint8)
    for code, logit in enumerate(channels[1:], start=1):
        labels.masked_fill_(logit > largest, code)
        if code < len(channels) - 1:
            largest = torch.maximum(largest, logit)
    return labels


def count_voxels(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """int64 [n_classes - 1, 3]: true positives, false positives, false negatives of the classes 1, 2, ...

    ``predicted`` and ``truth`` [B, ...]: codes; the voxels of the batch are pooled. ``known``
    bool [B, n_classes]: a class counts in the cases that label it in full. Nothing here
    waits for a GPU.
    """
    counts = []
    for code in range(1, known.shape[1]):
        of_known = known[:, code].reshape(-1, *[1] * (truth.ndim - 1))
        p, t = (predicted == code) & of_known, (truth == code) & of_known
        both = torch.count_nonzero(p & t)
        counts += [both, torch.count_nonzero(p) - both, torch.count_nonzero(t) - both]
    return torch.stack(counts).reshape(-1, 3)


def ratios(counts: Sequence[int]) -> tuple[float, float, float, float]:
    """DSC, IoU, precision and recall (:data:`RATIOS`) of one row of :func:`count_voxels`.

    nan where a definition divides 0 by 0.
    """
    true_positive, false_positive, false_negative = map(int, counts)
    overlap = Overlap(
        true_positive=true_positive, false_positive=false_positive, false_negative=false_negative
    )
    return (
        _or_nan(overlap.dsc),
        _or_nan(overlap.jaccard),
        _or_nan(overlap.precision),
        _or_nan(overlap.recall),
    )


def columns(names: Sequence[str], *, prefix: str = "") -> list[str]:
    """The log's columns of the ratios of targets ``names``: of each ratio the mean, then every target."""
    return [column for ratio in RATIOS for column in column_of(ratio, names, prefix=prefix)]


def column_of(ratio: str, names: Sequence[str], *, prefix: str = "") -> list[str]:
    """The columns of one ratio: the mean over targets, then every target."""
    return [f"{prefix}{ratio}", *(f"{prefix}{ratio}_{name}" for name in names)]


def _or_nan(value: float | None) -> float:
    return nan if value is None else value
