"""What an attention gate is made of. No network is needed to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ct_attn.network.levels import Axes

GateActivation = Literal["sigmoid", "softmax", "none"]
GatePart = Literal["theta", "phi", "psi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateForm:
    """What a gate is made of; the default is what the authors released.

    ``stride``: the block of skip voxels that makes one voxel of the gate's grid; 1
    computes alpha on the skip's own grid. ``theta``: a convolution over those blocks, or
    ``pooled``: their maximum, then a 1x1x1 convolution. ``inner_share``: the intermediate
    channels are the skip's divided by this. ``norms``: which of the convolutions theta,
    phi and psi a normalisation follows. ``activation`` turns q into alpha: ``sigmoid``;
    ``softmax`` over all voxels of the gate's grid, on which alpha then sums to 1; or
    ``none``, alpha = q. ``coefficients``: ``one`` per voxel; ``per_channel``: psi has as
    many channels as the skip; ``raised``: a transposed convolution brings one alpha to
    the skip's grid and channels. ``output``: alpha x goes on ``plain``, ``transformed``
    by a 1x1x1 convolution and normalisation (W), or ``combined``: by another, with
    activation, after it. ``own_signal``: a 1x1x1 convolution, normalisation and
    activation of the gating signal in front.
    """

    stride: int | Axes = 2
    theta: Literal["strided", "pooled"] = "strided"
    inner_share: int = 1
    norms: tuple[GatePart, ...] = ()
    activation: GateActivation = "sigmoid"
    coefficients: Literal["one", "per_channel", "raised"] = "one"
    output: Literal["combined", "transformed", "plain"] = "combined"
    own_signal: bool = False
