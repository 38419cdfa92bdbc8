"""What a recipe says of the loss; the loss itself is in :mod:`ct_attn.losses`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ct_attn.strict_model import FieldError, StrictModel


class LossConfig(StrictModel):
    """What training minimises: 1 - mean Dice, cross-entropy, or both."""

    activation: Literal["softmax", "sigmoid"] = "softmax"
    """``softmax`` over background and targets; or ``sigmoid`` of one channel per target, where a
    voxel is the target of the highest probability above 0.5, else background.
    """
    dice_weight: Annotated[float, Field(ge=0)] = 1.0
    """What 1 - mean Dice counts; 0 leaves it out."""
    denominator: Literal["squared", "linear"] = "squared"
    """Probabilities below the line: ``squared`` (the paper's) or ``linear``."""
    sums_over: Literal["batch", "image"] = "batch"
    """Voxels of the whole ``batch``, or of each ``image`` and then the mean."""
    include_background: bool = True
    """Background counts as a class like the others (``softmax`` only)."""
    smoothing_voxels: Annotated[float, Field(gt=0)] = 1.0
    """Added above and below the fraction: it keeps the score of a class that is absent from a
    batch defined, and its gradient bounded.
    """
    cross_entropy_weight: Annotated[float, Field(ge=0)] = 0.0
    """What the mean cross-entropy over voxels counts; 0 leaves it out. Of sigmoids it is the mean
    of the targets' binary cross-entropies.
    """

    @model_validator(mode="after")
    def _something_counts(self) -> LossConfig:
        if self.dice_weight == 0 and self.cross_entropy_weight == 0:
            raise FieldError(
                "dice_weight",
                "0, like cross_entropy_weight: one must be above",
                related=("cross_entropy_weight",),
            )
        return self
