"""The Sørensen-Dice loss, alone or with cross-entropy, for whole and partial labels.

Partial labels: a case that doesn't fully label a class has True nowhere in ``known``
for it. There, a voxel labelled 0 may be background or any such class, so what the
network must raise is the sum of their probabilities (marginal loss: Shi et al. 2021,
arXiv 2007.03868; Fang and Yan 2020, arXiv 2001.00208). Voxels that carry the label of a
half-labelled class count as usual; the class's own Dice term leaves the case out.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ct_attn.strict_model import StrictModel


class LossConfig(StrictModel):
    """What training minimises: 1 - mean Dice, plus a share of cross-entropy."""

    denominator: Literal["squared", "linear"] = "squared"
    """Probabilities below the line: ``squared`` (the paper's) or ``linear``."""
    sums_over: Literal["batch", "image"] = "batch"
    """Voxels of the whole ``batch``, or of each ``image`` and then the mean."""
    include_background: bool = True
    """Background counts as a class like the others."""
    smoothing_voxels: Annotated[float, Field(gt=0)] = 1.0
    """Added above and below the fraction: it keeps the score of a class that is absent from a
    batch defined, and its gradient bounded.
    """
    cross_entropy_weight: Annotated[float, Field(ge=0)] = 0.0
    """What the mean cross-entropy over voxels counts; 0 leaves it out."""


class SegmentationLoss(nn.Module):
    """The loss of a :class:`LossConfig`; by default the paper's.

    D = (2 sum p g + s) / (sum p^2 + sum g^2 + s) per class: Oktay et al. 2018 (arXiv
    1804.03999), section 3, after Milletari et al. 2016 (arXiv 1606.04797), eq. 1; s is
    the smoothing, and with linear denominators the squares fall away. The Dice part of
    a perfect prediction is 0, whichever classes are absent. Computed in float32 whatever
    the precision of the logits, since half precision cannot sum a patch's voxels.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, logits: Tensor, labels: Tensor, known: Tensor | None = None) -> Tensor:
        """The loss (a scalar) of ``logits`` [B, C, ...] for ``labels`` [B, ...], codes below C.

        ``known`` bool [B, C]: which classes each case labels in full; None: all.
        """
        config = self.config
        if known is None:
            known = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
        with torch.autocast(logits.device.type, enabled=False):
            loss = 1 - mean_dice(logits.float(), labels.long(), known, config)
            if config.cross_entropy_weight:
                entropy = marginal_cross_entropy(logits.float(), labels.long(), known)
                loss = loss + config.cross_entropy_weight * entropy
        return loss


def mean_dice(logits: Tensor, labels: Tensor, known: Tensor, config: LossConfig) -> Tensor:
    """The mean of :func:`sorensen_dice` over the classes that some case labels in full.

    With ``include_background`` off and no organ known, there is nothing to score: 1.
    """
    scores, counted = sorensen_dice(logits, labels, known, config)
    if not config.include_background:
        scores, counted = scores[..., 1:], counted[..., 1:]
    return (scores * counted).sum() / counted.sum() if counted.any() else logits.sum() * 0 + 1


def sorensen_dice(logits: Tensor, labels: Tensor, known: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """D of every class, and which of them count (where some case knows the class).

    Both are [C], or [B, C] where the sums run over each image.
    """
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    p = _with_marginal_background(torch.softmax(logits, dim=1), labels, truth, known)
    of_known = known.reshape(*known.shape, *[1] * (p.ndim - 2))
    p, truth = p * of_known, truth * of_known
    over = list(range(2, p.ndim)) if config.sums_over == "image" else [0, *range(2, p.ndim)]
    overlap = (p * truth).sum(over)
    size = (p * p if config.denominator == "squared" else p).sum(over) + truth.sum(over)  # g^2 = g
    scores = (2 * overlap + config.smoothing_voxels) / (size + config.smoothing_voxels)
    return scores, known if config.sums_over == "image" else known.any(dim=0)


def marginal_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """-log of the probability that a voxel has its label, or one that its 0 may stand for.

    The mean over all voxels. ``logits`` [B, C, ...], ``labels`` [B, ...], ``known`` [B, C].
    """
    allowed = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).bool()
    unknown = ~known.reshape(*known.shape, *[1] * (logits.ndim - 2))
    allowed = allowed | (unknown & (labels == 0).unsqueeze(1))
    hit = logits.masked_fill(~allowed, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - hit).mean()


def _with_marginal_background(p: Tensor, labels: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """``p`` with background joined by what it cannot be told from in each case.

    That are the classes not known there; at a voxel labelled as one of them, all but that one.
    """
    if known.all():
        return p
    unknown = (~known).reshape(*known.shape, *[1] * (p.ndim - 2))
    joined = p[:, :1] + (p * unknown * (1 - truth))[:, 1:].sum(dim=1, keepdim=True)
    return torch.cat([joined, p[:, 1:]], dim=1)
