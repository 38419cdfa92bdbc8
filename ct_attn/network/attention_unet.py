"""The 3D Attention U-Net of Oktay et al. 2018 (arXiv 1804.03999), one gate per skip."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from ct_attn.network.attention_gate import AttentionGate
from ct_attn.network.blocks import ConvNormReLU, initialise
from ct_attn.network.unet import LevelsConfig, UNet, Width


class AttentionUNetConfig(LevelsConfig):
    """A U-Net in which every skip but the finest passes one additive gate.

    At least three levels: with two, the finest skip is the only one.
    """

    widths: Annotated[tuple[Width, ...], Field(min_length=3)] = (16, 32, 64, 128, 256)
    kind: Literal["attention_unet"] = "attention_unet"


class AttentionUNet(UNet):
    """A :class:`UNet` whose skips, save the finest, pass an attention gate.

    The deepest gate is driven by the gating signal (1x1x1 convolution, batch
    normalisation and ReLU on the center), a shallower one by the decoder's features
    one level below it. With the default widths, 1 channel in and 4 classes it has
    6,214,151 parameters, as the network the authors released.
    """

    def __init__(self, config: AttentionUNetConfig, *, in_channels: int, n_classes: int) -> None:
        super().__init__(config, in_channels=in_channels, n_classes=n_classes)
        widths = config.widths
        self.gating = ConvNormReLU(widths[-1], widths[-1], kernel_size=1)
        self.gates = nn.ModuleList(
            AttentionGate(widths[level], widths[level + 1]) for level in range(1, len(widths) - 1)
        )
        initialise(self.gating)
        initialise(self.gates)

    def decode_level(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        if level > 0:
            skip = self.gate(level)(skip, self.gating_signal(level, below))
        return super().decode_level(level, skip, below)

    def gate(self, level: int) -> AttentionGate:
        gate = self.gates[level - 1]
        assert isinstance(gate, AttentionGate)
        return gate

    def gating_signal(self, level: int, below: Tensor) -> Tensor:
        """What drives the gate of ``level``; ``below`` are the features one level down."""
        deepest = len(self.gates)
        signal: Tensor = self.gating(below) if level == deepest else below
        return signal
