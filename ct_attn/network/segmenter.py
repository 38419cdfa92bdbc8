"""What every network here is to the rest of the package."""

from __future__ import annotations

from typing import Self

from torch import nn


class Segmenter(nn.Module):
    """An image [B, in_channels, I, J, K] (2D: [B, in_channels, I, J]) in, logits [B, n_classes, ...] out.

    The sides of the image are multiples of ``size_multiple``, per axis. The parts named
    in ``frozen`` (see :func:`ct_attn.network.transfer.freeze`) stay in evaluation mode
    while the rest trains, so that their batch statistics stay what they were.
    """

    def __init__(self, size_multiple: tuple[int, ...]) -> None:
        super().__init__()
        self.size_multiple = size_multiple
        self.frozen: tuple[str, ...] = ()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self
