"""The Attention U-Net of Oktay et al. 2018 (arXiv 1804.03999) and its published variants."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm, prod
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ct_attn.network.attention_gate import (
    AttentionGate,
    GateActivation,
    GateForm,
    GatePart,
    Highway,
    MultiAttentionGate,
    open_highway,
    pass_through,
)
from ct_attn.network.blocks import ConvNormReLU, initialise
from ct_attn.network.levels import Axes, Count, LevelsConfig
from ct_attn.network.unet import UNet


class GatesConfig(LevelsConfig):
    """Which skips pass additive gates, and what the gates are like."""

    gated_skips: tuple[int, ...] | None = None
    """Levels whose skip is gated, 0 the finest; null: all but the finest, for which there must
    be at least three levels.
    """
    gates_per_skip: Literal[1, 2] = 1
    """2 are concatenated and combined ("multi")."""
    gate_activation: GateActivation = "sigmoid"
    """``softmax`` is over the gate's grid, where alpha then sums to 1."""
    gate_grid: Literal["coarse", "skip"] | tuple[Count, ...] = "coarse"
    """Where alpha is computed: one level below the skip, or on its own grid (theta is then
    1x1x1); or the block of skip voxels that makes one voxel of that grid, one number per axis:
    ``[2, 2, 2]`` where poolings are 2x2x1 (the authors' first class).
    """
    gate_theta: Literal["strided", "pooled"] = "strided"
    """How theta goes over those blocks: a convolution, or their maximum and then a 1x1x1 one."""
    gate_inner_share: Count = 1
    """The gate's intermediate channels are the skip's divided by this."""
    gate_norms: tuple[GatePart, ...] = ()
    """Which of theta, phi and psi a normalisation follows."""
    gate_coefficients: Literal["one", "per_channel", "raised"] = "one"
    """``one`` per voxel; ``per_channel``: psi has the skip's channels; ``raised``: one, brought to
    the skip's grid and channels by a transposed convolution.
    """
    gate_output: Literal["combined", "transformed", "plain"] = "combined"
    """Behind the gated skip: two 1x1x1 convolutions with normalisation as released, the first of
    them only, or nothing.
    """
    gating_signal: Literal["per_level", "below", "per_gate", "shared"] = "per_level"
    """``per_level``: the deepest gate takes a 1x1x1 convolution of the center, a shallower one
    the decoder's features one level below. ``below``: the center, too, is taken as it is.
    ``per_gate``: likewise, through a 1x1x1 convolution of each gate's own. ``shared``: all take
    one 1x1x1 convolution of the center, narrowed to the next finer level's width (the authors'
    first release).
    """
    gate_init: Literal["released", "pass_through"] = "released"
    """``pass_through``: alpha starts at 0.953 everywhere (sigmoid only)."""
    highway: bool = False
    """A learnt share of each gated skip goes around its gate."""

    @model_validator(mode="after")
    def _gates_fit(self) -> GatesConfig:
        deepest = len(self.widths) - 2
        gated = self.gated_levels
        if not gated:
            raise ValueError("no skip is gated: give widths at least 3 items, or name levels in gated_skips")
        if min(gated) < 0 or max(gated) > deepest or len(set(gated)) < len(gated):
            raise ValueError(
                f"gated_skips: expected levels from 0 to {deepest}, each once, got {self.gated_skips}"
            )
        if isinstance(self.gate_grid, tuple) and len(self.gate_grid) != self.dims:
            raise ValueError(f"gate_grid: expected {self.dims} numbers (one per axis), got {self.gate_grid}")
        if len(set(self.gate_norms)) < len(self.gate_norms):
            raise ValueError("gate_norms: name each part once")
        if self.gates_per_skip == 2 and self.gate_output != "combined":
            raise ValueError("gate_output: two gates per skip are combined; leave it out")
        if self.gate_init == "pass_through":
            self._gates_can_start_open()
        return self

    def _gates_can_start_open(self) -> None:
        if self.gate_activation != "sigmoid":
            raise ValueError("gate_init: pass_through needs gate_activation sigmoid")
        if "psi" in self.gate_norms or self.gate_coefficients == "raised":
            raise ValueError("gate_init: pass_through needs psi without a norm, and coefficients not raised")

    @property
    def gated_levels(self) -> tuple[int, ...]:
        """The levels whose skips are gated, finest first."""
        if self.gated_skips is None:
            return tuple(range(1, len(self.widths) - 1))
        return tuple(sorted(self.gated_skips))

    @property
    def size_multiple(self) -> Axes:
        """As the poolings ask for, and such that every gate's grid is of whole blocks."""
        multiple = super().size_multiple
        for level in self.gated_levels:
            above = [prod(sides) for sides in zip(*self.pool_sizes[:level], strict=True)] or [1] * self.dims
            blocks = [up * side for up, side in zip(above, self.gate_stride(level), strict=True)]
            multiple = tuple(lcm(*pair) for pair in zip(multiple, blocks, strict=True))
        return multiple

    def gate_stride(self, level: int) -> Axes:
        """The block of the skip's voxels that makes one voxel of the grid of the gate of ``level``."""
        if isinstance(self.gate_grid, tuple):
            return self.gate_grid
        return self.pool_sizes[level] if self.gate_grid == "coarse" else (1,) * self.dims

    def gate_form(self, level: int) -> GateForm:
        """What the gate of ``level`` is made of."""
        return GateForm(
            stride=self.gate_stride(level),
            theta=self.gate_theta,
            inner_share=self.gate_inner_share,
            norms=self.gate_norms,
            activation=self.gate_activation,
            coefficients=self.gate_coefficients,
            output=self.gate_output,
            own_signal=self.gating_signal == "per_gate",
        )


class AttentionUNetConfig(GatesConfig):
    """A U-Net in which skips pass additive gates; by default the released single-gate network."""

    kind: Literal["attention_unet"] = "attention_unet"


class AttentionUNet(UNet):
    """A :class:`UNet` whose skips pass attention gates; by default all but the finest do.

    With the default widths, 1 channel in and 4 classes it has 6,214,151 parameters, as
    the single-gate network the authors released; with two gates per skip 6,473,322.
    """

    def __init__(self, config: GatesConfig, *, in_channels: int, n_classes: int) -> None:
        super().__init__(config, in_channels=in_channels, n_classes=n_classes)
        self.gated_levels = config.gated_levels
        self.gates_per_skip = config.gates_per_skip
        self.signal_from = config.gating_signal
        self._build_gates(config)
        for part in (self.gating, self.gates, self.highways):
            initialise(part)
        for highway in self.highways:
            open_highway(highway)
        if config.gate_init == "pass_through":
            pass_through(self.gates)

    def _build_gates(self, config: GatesConfig) -> None:
        widths, layers = config.widths, config.layers
        shared = self.signal_from == "shared"
        signal = widths[-2] if shared else widths[-1]
        gate = AttentionGate if config.gates_per_skip == 1 else MultiAttentionGate
        deepest_gated = self.gated_levels[-1] == len(widths) - 2
        from_center = shared or (self.signal_from == "per_level" and deepest_gated)
        self.gating = (
            ConvNormReLU(widths[-1], signal, kernel_size=1, layers=layers) if from_center else nn.Identity()
        )
        self.gates = nn.ModuleList(
            gate(
                widths[level],
                signal if shared else widths[level + 1],
                form=config.gate_form(level),
                layers=layers,
            )
            for level in self.gated_levels
        )
        self.highways = nn.ModuleList(
            Highway(widths[level], layers) for level in (self.gated_levels if config.highway else ())
        )

    def decode(self, skips: list[Tensor], bottom: Tensor) -> list[Tensor]:
        from_center = self.gating(bottom)
        features = [bottom]
        for level in reversed(range(len(skips))):
            skip = skips[level]
            if level in self.gated_levels:
                signal = self.gating_signal(level, features[0], from_center)
                skip = self.run(self._gated(level), skip, signal)
            features.insert(0, self.decode_level(level, skip, features[0]))
        return features[:-1]

    def gate(self, level: int) -> AttentionGate | MultiAttentionGate:
        """The gate of the skip of ``level``."""
        gate = self.gates[self.gated_levels.index(level)]
        assert isinstance(gate, AttentionGate | MultiAttentionGate)
        return gate

    def gating_signal(self, level: int, below: Tensor, from_center: Tensor) -> Tensor:
        """What drives the gate of ``level``; ``below`` are the features one level down."""
        if self.signal_from == "shared":
            return from_center
        deepest = level == len(self.decoder) - 1
        return from_center if deepest and self.signal_from == "per_level" else below

    def _gated(self, level: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The gate of ``level`` with its highway, if there is one."""
        gate = self.gate(level)
        if not len(self.highways):
            return gate
        highway = self.highways[self.gated_levels.index(level)]
        return lambda skip, signal: highway(skip, gate(skip, signal))

    @property
    def gate_names(self) -> list[str]:
        """``level1``, ``level2``, ...; with two gates per skip ``level1_gate1``, ``level1_gate2``, ...

        In the order of the channels that :meth:`stacked_attention` gives.
        """
        names = [f"level{level}" for level in self.gated_levels]
        if self.gates_per_skip == 1:
            return names
        return [f"{name}_gate{gate}" for name in names for gate in range(1, self.gates_per_skip + 1)]

    def stacked_attention(self, image: Tensor) -> Tensor:
        """alpha of all gates, one after the other in the order of :attr:`gate_names`, [B, gates, I, J, K]."""
        return torch.cat(list(self.attention_maps(image).values()), dim=1)

    def attention_maps(self, image: Tensor) -> dict[int, Tensor]:
        """alpha of every gated level (0 the finest) for ``image`` [B, in_channels, I, J, K].

        Each is [B, gates per skip, I, J, K]: brought from the skip's grid to the image's,
        linearly, so that sigmoid gates stay in (0, 1). Of a gate with a coefficient per
        channel it is their mean. Meant for evaluation mode: the
        gates run a second time after the network has.
        """
        skips, bottom = self.encode(image)
        below = [*self.decode(skips, bottom)[1:], bottom]
        from_center = self.gating(bottom)
        size = tuple(image.shape[2:])
        maps = {}
        for level in self.gated_levels:
            signal = self.gating_signal(level, below[level], from_center)
            maps[level] = self.layers.resample(self.gate(level).maps(skips[level], signal), size)
        return maps
