"""The 3D U-Net with deep supervision that Oktay et al. 2018 compare against."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ct_attn.network.blocks import DoubleConv, initialise, resample
from ct_attn.strict_model import StrictModel

Width = Annotated[int, Field(ge=1)]


class LevelsConfig(StrictModel):
    """The levels of a U-Net. ``widths``: channels from the finest level to the coarsest."""

    widths: Annotated[tuple[Width, ...], Field(min_length=2)] = (16, 32, 64, 128, 256)

    @property
    def size_multiple(self) -> int:
        """Every side of a patch must be a multiple of this: 2 per pooling."""
        return int(2 ** (len(self.widths) - 1))


class UNetConfig(LevelsConfig):
    """A U-Net with plain skip connections."""

    kind: Literal["unet"] = "unet"


class UNet(nn.Module):
    """Encoder, decoder, and one prediction fused from the class maps of all scales.

    Level l has ``widths[l]`` channels; 2x2x2 max pooling leads down, trilinear
    upsampling and concatenation with the skip lead up. ``forward`` takes an image
    [B, in_channels, I, J, K] whose sides are multiples of ``config.size_multiple`` and
    gives logits [B, n_classes, I, J, K].
    """

    def __init__(self, config: LevelsConfig, *, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self._build(config.widths, in_channels=in_channels, n_classes=n_classes)
        self.size_multiple = config.size_multiple
        initialise(self)

    def _build(self, widths: tuple[int, ...], *, in_channels: int, n_classes: int) -> None:
        levels = range(len(widths) - 1)
        self.encoder = nn.ModuleList(
            DoubleConv((in_channels, *widths)[level], widths[level]) for level in levels
        )
        self.center = DoubleConv(widths[-2], widths[-1])
        self.decoder = nn.ModuleList(
            DoubleConv(widths[level] + widths[level + 1], widths[level]) for level in levels
        )
        self.pool = nn.MaxPool3d(2)
        self.heads = nn.ModuleList(nn.Conv3d(width, n_classes, kernel_size=1) for width in widths[:-1])
        self.fuse = nn.Conv3d(n_classes * len(levels), n_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        skips, bottom = self.encode(image)
        return self.predict(self.decode(skips, bottom))

    def encode(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The skip of every level (level 0 at full size) and the center's features."""
        _require_multiple(image, self.size_multiple)
        skips: list[Tensor] = []
        x = image
        for level in self.encoder:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        return skips, self.center(x)

    def decode(self, skips: list[Tensor], bottom: Tensor) -> list[Tensor]:
        """The decoder's features of every level, finest first."""
        features: list[Tensor] = []
        x = bottom
        for level in reversed(range(len(skips))):
            x = self.decode_level(level, skips[level], x)
            features.insert(0, x)
        return features

    def decode_level(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """Level ``level`` from its skip and the features one level below."""
        features: Tensor = self.decoder[level](torch.cat([skip, resample(below, skip.shape[2:])], dim=1))
        return features

    def predict(self, features: list[Tensor]) -> Tensor:
        """Class maps of all scales, upsampled, concatenated and fused by a 1x1x1 convolution."""
        size = features[0].shape[2:]
        maps = [head(x) for head, x in zip(self.heads, features, strict=True)]
        fused: Tensor = self.fuse(torch.cat([maps[0], *(resample(m, size) for m in maps[1:])], dim=1))
        return fused


def _require_multiple(image: Tensor, multiple: int) -> None:
    size = tuple(image.shape[2:])
    if any(side % multiple for side in size):
        raise ValueError(f"every side of a patch must be a multiple of {multiple}, got {size}")
