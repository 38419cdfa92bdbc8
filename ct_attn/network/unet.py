"""The U-Net with deep supervision that Oktay et al. 2018 compare against, and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ct_attn.network.blocks import DoubleConv, initialise
from ct_attn.network.levels import LevelsConfig, require_multiple
from ct_attn.network.recompute import recomputed
from ct_attn.network.segmenter import Segmenter


class UNetConfig(LevelsConfig):
    """A U-Net with plain skip connections."""

    kind: Literal["unet"] = "unet"


class UNet(Segmenter):
    """Encoder, decoder, and one prediction fused from the class maps of all scales.

    Level l has ``widths[l]`` channels; max pooling leads down, upsampling and
    concatenation with the skip lead up. ``forward`` takes an image
    [B, in_channels, I, J, K] whose sides are multiples of ``config.size_multiple`` and
    gives logits [B, n_classes, I, J, K]; with ``dims=2`` there is no K.
    """

    def __init__(self, config: LevelsConfig, *, in_channels: int, n_classes: int) -> None:
        super().__init__(config.size_multiple)
        self.layers = config.layers
        self.checkpointing = config.checkpointing
        self._build_levels(config, in_channels=in_channels)
        self._build_heads(config, n_classes=n_classes)
        initialise(self)

    def _build_levels(self, config: LevelsConfig, *, in_channels: int) -> None:
        widths, layers, kernels = config.widths, config.layers, config.kernel_sizes
        levels = range(len(widths) - 1)
        transposed = config.upsampling == "transposed"

        def double(channels: int, level: int) -> DoubleConv:
            return DoubleConv(channels, widths[level], kernel_size=kernels[level], layers=layers)

        self.encoder = nn.ModuleList(double((in_channels, *widths)[level], level) for level in levels)
        self.center = double(widths[-2], len(levels))
        self.decoder = nn.ModuleList(
            double(widths[level] + widths[level if transposed else level + 1], level) for level in levels
        )
        self.pools = nn.ModuleList(layers.pooling(size) for size in config.pool_sizes)
        self.raisers = nn.ModuleList(
            layers.transposed(widths[level + 1], widths[level], config.pool_sizes[level])
            for level in (levels if transposed else ())
        )

    def _build_heads(self, config: LevelsConfig, *, n_classes: int) -> None:
        fused = config.deep_supervision == "fused"
        scales = config.widths[:-1] if fused else config.widths[:1]
        self.heads = nn.ModuleList(self.layers.convolution(width, n_classes, 1) for width in scales)
        self.fuse = self.layers.convolution(n_classes * len(scales), n_classes, 1) if fused else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        skips, bottom = self.encode(image)
        return self.predict(self.decode(skips, bottom))

    def encode(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The skip of every level (level 0 at full size) and the center's features."""
        require_multiple(tuple(image.shape[2:]), self.size_multiple)
        skips: list[Tensor] = []
        x = image
        for level, pool in zip(self.encoder, self.pools, strict=True):
            x = self.run(level, x)
            skips.append(x)
            x = pool(x)
        return skips, self.run(self.center, x)

    def decode(self, skips: list[Tensor], bottom: Tensor) -> list[Tensor]:
        """The decoder's features of every level, finest first."""
        features = [bottom]
        for level in reversed(range(len(skips))):
            features.insert(0, self.decode_level(level, skips[level], features[0]))
        return features[:-1]

    def decode_level(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """Level ``level`` from its skip and the features one level below."""
        return self.run(partial(self._joined, level), skip, below)

    def _joined(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        size = tuple(skip.shape[2:])
        raised = self.raisers[level](below) if len(self.raisers) else self.layers.resample(below, size)
        features: Tensor = self.decoder[level](torch.cat([skip, raised], dim=1))
        return features

    def predict(self, features: list[Tensor]) -> Tensor:
        """Class maps of all scales, upsampled, concatenated and fused by a 1x1x1 convolution.

        Without deep supervision the class map of the finest features is the prediction.
        """
        size = tuple(features[0].shape[2:])
        maps = [head(x) for head, x in zip(self.heads, features, strict=False)]
        raised = [maps[0], *(self.layers.resample(map_, size) for map_ in maps[1:])]
        fused: Tensor = self.fuse(torch.cat(raised, dim=1))
        return fused

    def run(self, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``part(*inputs)``, computed twice rather than kept where the config says so."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(self, part, *inputs)
        return part(*inputs)
