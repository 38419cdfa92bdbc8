"""The Attention U-Net of Oktay et al. 2018 (arXiv 1804.03999) and its published variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ct_attn.network.attention_gate import (
    AttentionGate,
    Highway,
    MultiAttentionGate,
    open_highway,
    pass_through,
)
from ct_attn.network.blocks import ConvNormReLU, initialise
from ct_attn.network.configs import AttentionUNetConfig, GatesConfig
from ct_attn.network.unet import UNet

__all__ = ["AttentionUNet", "AttentionUNetConfig", "GatesConfig"]


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
        size = tuple(image.shape[2:])
        return {
            level: self.layers.resample(self.gate(level).maps(skip, signal), size)
            for level, skip, signal in self._gate_inputs(image)
        }

    def stacked_features(self, image: Tensor) -> Tensor:
        """What every gate sees, says and lets through, [B, 3 gates, I, J, K].

        For each of :attr:`gate_names` the mean over channels of |x|, alpha as
        :meth:`attention_maps` gives it, and the mean over channels of |alpha x|: what is
        passed on to the convolutions behind the gate. Brought from the skip's grid to the
        image's, linearly.
        """
        size = tuple(image.shape[2:])
        maps = []
        for level, skip, signal in self._gate_inputs(image):
            for alpha in self.gate(level).each(skip, signal):
                shown = (skip.abs(), alpha, (alpha * skip).abs())
                means = torch.cat([one.mean(dim=1, keepdim=True) for one in shown], dim=1)
                maps.append(self.layers.resample(means, size))
        return torch.cat(maps, dim=1)

    def _gate_inputs(self, image: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Every gated level with its skip and its gating signal."""
        skips, bottom = self.encode(image)
        below = [*self.decode(skips, bottom)[1:], bottom]
        from_center = self.gating(bottom)
        for level in self.gated_levels:
            yield level, skips[level], self.gating_signal(level, below[level], from_center)
