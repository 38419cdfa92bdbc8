"""The Sørensen-Dice loss."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ct_attn.strict_model import StrictModel


class DiceLossConfig(StrictModel):
    """``smoothing_voxels`` is added above and below the fraction: it keeps the score of
    a class that is absent from a batch defined, and its gradient bounded.
    ``include_background`` counts background as a class like the others.
    """

    smoothing_voxels: Annotated[float, Field(gt=0)] = 1.0
    include_background: bool = True


class SorensenDiceLoss(nn.Module):
    """1 - mean over classes of D, in the form with squared denominators.

    D = (2 sum p g + s) / (sum p^2 + sum g^2 + s) per class, the sums running over all
    voxels of the batch: Oktay et al. 2018 (arXiv 1804.03999), section 3, after
    Milletari et al. 2016 (arXiv 1606.04797), eq. 1; s is the smoothing. A perfect
    prediction gives 0, whichever classes are absent. Computed in float32 whatever the
    precision of the logits, since half precision cannot sum a patch's voxels.
    """

    def __init__(self, config: DiceLossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss (a scalar) of ``logits`` [B, C, ...] for ``labels`` [B, ...], codes below C."""
        scores = sorensen_dice(logits, labels, smoothing_voxels=self.config.smoothing_voxels)
        return 1 - (scores if self.config.include_background else scores[1:]).mean()


def sorensen_dice(logits: Tensor, labels: Tensor, *, smoothing_voxels: float) -> Tensor:
    """D per class, [C]; see :class:`SorensenDiceLoss`."""
    with torch.autocast(logits.device.type, enabled=False):
        p = torch.softmax(logits.float(), dim=1)
        g = functional.one_hot(labels.long(), logits.shape[1]).movedim(-1, 1).float()
        voxels = [0, *range(2, p.ndim)]
        overlap = (p * g).sum(voxels)
        size = (p * p).sum(voxels) + g.sum(voxels)  # g^2 = g
        return (2 * overlap + smoothing_voxels) / (size + smoothing_voxels)
