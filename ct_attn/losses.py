"""The Sørensen-Dice loss and cross-entropy, alone or summed, for whole and partial labels.

Partial labels: a case that doesn't fully label a class has True nowhere in ``known``
for it. There, a voxel labelled 0 may be background or any such class, so what the
network must raise is the sum of their probabilities (marginal loss: Shi et al. 2021,
arXiv 2007.03868; Fang and Yan 2020, arXiv 2001.00208). Voxels that carry the label of a
half-labelled class count as usual; the class's own Dice term leaves the case out.

With sigmoids every organ is predicted for itself, background is what is no organ, and
the cross-entropy is the binary one. An organ that a case doesn't label in full is then
left out of both terms, but for the cross-entropy where a voxel carries a label.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ct_attn.loss_config import LossConfig

__all__ = ["LossConfig", "SegmentationLoss"]


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

        With sigmoids, ``logits`` lack the background's. ``known`` bool [B, C]: which
        classes each case labels in full; None: all.
        """
        config = self.config
        sigmoid = config.activation == "sigmoid"
        if known is None:
            n_classes = logits.shape[1] + sigmoid
            known = torch.ones(len(logits), n_classes, dtype=torch.bool, device=logits.device)
        entropy_of = binary_cross_entropy if sigmoid else marginal_cross_entropy
        with torch.autocast(logits.device.type, enabled=False):
            logits, labels = logits.float(), labels.long()
            loss = logits.sum() * 0
            if config.dice_weight:
                loss = loss + config.dice_weight * (1 - mean_dice(logits, labels, known, config))
            if config.cross_entropy_weight:
                loss = loss + config.cross_entropy_weight * entropy_of(logits, labels, known)
        return loss


def mean_dice(logits: Tensor, labels: Tensor, known: Tensor, config: LossConfig) -> Tensor:
    """The mean of :func:`sorensen_dice` over the classes that some case labels in full.

    Where no organ is known and background doesn't count, there is nothing to score: 1.
    """
    scores, counted = sorensen_dice(logits, labels, known, config)
    if not config.include_background and config.activation == "softmax":
        scores, counted = scores[..., 1:], counted[..., 1:]
    return (scores * counted).sum() / counted.sum() if counted.any() else logits.sum() * 0 + 1


def sorensen_dice(logits: Tensor, labels: Tensor, known: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """D of every class, and which of them count (where some case knows the class).

    Both are [C], or [B, C] where the sums run over each image; with sigmoids without
    background.
    """
    truth = _one_hot(labels, known.shape[1]).to(logits.dtype)
    if config.activation == "sigmoid":
        p, truth, known = torch.sigmoid(logits), truth[:, 1:], known[:, 1:]
    else:
        p = torch.softmax(logits, dim=1)
        if not known.all():
            p = _with_marginal_background(p, truth, known)
    if not known.all():
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
    if known.all():
        return (logits.logsumexp(dim=1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)).mean()
    unknown = ~known.reshape(*known.shape, *[1] * (logits.ndim - 2))
    allowed = _one_hot(labels, logits.shape[1]) | (unknown & (labels == 0).unsqueeze(1))
    hit = logits.masked_fill(~allowed, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - hit).mean()


def binary_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """The mean over organs and voxels of -log of the probability of being in, or not in, the organ.

    ``logits`` [B, C - 1, ...], ``labels`` [B, ...], ``known`` [B, C]. Of an organ that a case
    doesn't label in full, only voxels count that carry a label, its own or another's.
    """
    truth = _one_hot(labels, known.shape[1])[:, 1:].to(logits.dtype)
    of_known = known[:, 1:].reshape(len(known), -1, *[1] * (logits.ndim - 2))
    counts = (of_known | (labels > 0).unsqueeze(1)).to(logits.dtype)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (entropy * counts).sum() / counts.sum().clamp(min=1)


def _one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """bool [B, C, ...]: where ``labels`` [B, ...] is each class. torch's own takes eight times the memory."""
    codes = torch.arange(n_classes, dtype=labels.dtype, device=labels.device)
    return labels.unsqueeze(1) == codes.reshape(-1, *[1] * (labels.ndim - 1))


def _with_marginal_background(p: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """``p`` with background joined by what it cannot be told from in each case.

    That are the classes not known there; at a voxel labelled as one of them, all but that one.
    """
    unknown = (~known).reshape(*known.shape, *[1] * (p.ndim - 2))
    joined = p[:, :1] + (p * unknown * (1 - truth))[:, 1:].sum(dim=1, keepdim=True)
    return torch.cat([joined, p[:, 1:]], dim=1)
