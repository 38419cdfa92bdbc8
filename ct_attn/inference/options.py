"""What a user decides about a prediction, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ct_attn.volume import Mask, Volume

Backend = Literal["auto", "torch", "openvino"]
Windows = Literal["chosen", "trained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """How a model is run. Whatever is None or ``auto`` is decided by the recipe and the machine.

    ``device``: auto, cpu, mps, cuda, cuda:N. ``backend``: what computes there; ``auto``
    takes the faster of those that are installed. ``precision``: number format of the
    network. ``memory_bytes``: bound of what a prediction holds at a time, the scan and
    its mask included. ``fast``: a working grid as coarse as the training's zoom allows, less
    overlap: a preview. ``mirroring``: average with mirrored copies. ``body_mask``: compute only
    where the patient is. ``windows``: as large as memory allows, or of the training's
    patch, which is what its validation saw. ``compile``: through ``torch.compile``, which
    takes the torch backend.
    """

    device: str = "auto"
    backend: Backend = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    memory_bytes: int | None = None
    fast: bool = False
    mirroring: bool | None = None
    body_mask: bool = True
    windows: Windows = "chosen"
    compile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says of one scan.

    ``mask`` and ``probabilities`` (by target, 0 to 1; empty unless asked for) lie on the
    scan's own grid. ``confidence`` by target, 0 to 1: how far what was computed more than
    once (overlapping windows, mirrored copies, models) agrees there; NaN for a target that
    was not found in any of it. ``seconds`` by stage. ``notes``: what was decided or given up on the way.
    """

    mask: Mask
    probabilities: Mapping[str, Volume] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


#: The recipe and the machine decide.
DEFAULTS = InferenceOptions()
