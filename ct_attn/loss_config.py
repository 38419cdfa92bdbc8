"""What a recipe says of the loss; the loss itself is in :mod:`ct_attn.losses`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
