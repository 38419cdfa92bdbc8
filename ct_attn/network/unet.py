"""The U-Net with deep supervision that Oktay et al. 2018 compare against, and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ct_attn.network.blocks import ConvNormReLU, DoubleConv, initialise
from ct_attn.network.configs import UNetConfig
from ct_attn.network.levels import LevelsConfig, require_multiple
from ct_attn.network.recompute import recomputed
from ct_attn.network.segmenter import Segmenter, Supervised

__all__ = ["UNet", "UNetConfig"]


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
        self._build_encoder(config, in_channels=in_channels)
        self._build_decoder(config)
        self._build_heads(config, n_classes=n_classes)
        initialise(self)

    def _build_encoder(self, config: LevelsConfig, *, in_channels: int) -> None:
        levels = range(len(config.widths) - 1)
        self.encoder = nn.ModuleList(
            self._double(config, (in_channels, *config.widths)[level], level) for level in levels
        )
        self.center = self._double(config, config.widths[-2], len(levels))
        self.pools = nn.ModuleList(self.layers.pooling(size) for size in config.pool_sizes)

    def _build_decoder(self, config: LevelsConfig) -> None:
        widths, layers = config.widths, config.layers
        levels = range(len(widths) - 1)
        narrows = config.upsampling != "linear"
        self.decoder = nn.ModuleList(
            self._decoder_level(config, widths[level] + widths[level if narrows else level + 1], level)
            for level in levels
        )
        raiser = layers.overlapping if config.upsampling == "overlapping" else layers.transposed
        self.raisers = nn.ModuleList(
            raiser(widths[level + 1], widths[level], config.pool_sizes[level])
            for level in (levels if narrows else ())
        )

    def _decoder_level(self, config: LevelsConfig, in_channels: int, level: int) -> nn.Module:
        content = ConvNormReLU if config.head == "in_level" and level == 0 else DoubleConv
        return content(
            in_channels,
            config.widths[level],
            kernel_size=config.kernel_sizes[level],
            layers=self.layers,
            normalised=config.decoder_norm == "same",
        )

    def _build_heads(self, config: LevelsConfig, *, n_classes: int) -> None:
        scales = config.widths[: config.supervised_levels]
        self.heads = nn.ModuleList(self.layers.convolution(width, n_classes, 1) for width in scales)
        if config.head == "in_level":
            # Without the activation: logits have both signs.
            last = ConvNormReLU(
                scales[0],
                n_classes,
                kernel_size=config.kernel_sizes[0],
                layers=self.layers,
                normalised=config.decoder_norm == "same",
            )
            self.heads[0] = nn.Sequential(*list(last)[:-1])
        stages = config.widths if config.deep_supervision == "stages" else ()
        self.stage_heads = nn.ModuleList(self.layers.convolution(width, n_classes, 1) for width in stages)
        self.fused = config.deep_supervision == "fused"
        self.fuse = (
            self.layers.convolution(n_classes * len(scales), n_classes, 1) if self.fused else nn.Identity()
        )

    def _double(self, config: LevelsConfig, in_channels: int, level: int) -> DoubleConv:
        return DoubleConv(
            in_channels, config.widths[level], kernel_size=config.kernel_sizes[level], layers=self.layers
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.predict(self.features(image))

    def supervised(self, image: Tensor) -> Supervised:
        """The prediction; with ``per_scale`` or ``stages``, every class map there is."""
        skips, bottom = self.encode(image)
        features = self.decode(skips, bottom)
        if self.fused or len(self.heads) == 1:
            return Supervised(logits=(self.predict(features),))
        maps = [head(x) for head, x in zip(self.heads, features, strict=False)]
        maps += [head(x) for head, x in zip(self.stage_heads, [*skips, bottom], strict=False)]
        levels = [*range(len(self.heads)), *range(len(self.stage_heads))]
        shares = [0.5**level for level in levels]
        return Supervised(logits=tuple(maps), weights=tuple(share / sum(shares) for share in shares))

    def features(self, image: Tensor) -> list[Tensor]:
        """The decoder's features of every level, finest first."""
        skips, bottom = self.encode(image)
        return self.decode(skips, bottom)

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

        Unless the scales are fused, the class map of the finest features is the prediction.
        """
        if not self.fused:
            finest: Tensor = self.heads[0](features[0])
            return finest
        size = tuple(features[0].shape[2:])
        maps = [head(x) for head, x in zip(self.heads, features, strict=True)]
        raised = [maps[0], *(self.layers.resample(map_, size) for map_ in maps[1:])]
        fused: Tensor = self.fuse(torch.cat(raised, dim=1))
        return fused

    def run(self, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``part(*inputs)``, computed twice rather than kept where the config says so."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(self, part, *inputs)
        return part(*inputs)
