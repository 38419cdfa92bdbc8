"""What a user decides about a prediction, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ct_attn.volume import Mask, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """How a model is run. Whatever is None or ``auto`` is decided by the recipe and the machine.

    ``device``: auto, cpu, cuda, cuda:N.
    """

    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says of one scan.

    ``mask`` and ``probabilities`` (by target, 0 to 1; empty unless asked for) lie on the
    scan's own grid. ``seconds`` by stage. ``notes``: what was decided or given up on the way.
    """

    mask: Mask
    probabilities: Mapping[str, Volume] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


#: The recipe and the machine decide.
DEFAULTS = InferenceOptions()
