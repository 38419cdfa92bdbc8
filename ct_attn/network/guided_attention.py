"""Multi-scale guided attention: Sinha and Dolz 2019 (arXiv 1906.02849).

A ResNet's four stages, brought to the largest's grid, make one multi-scale map; each
stage is refined twice by position and channel attention (Fu et al. 2019, arXiv
1809.02983) that a small autoencoder of what the attention sees guides. Four masks,
averaged, are the prediction.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ct_attn.network.blocks import ConvNormReLU, DoubleConv, Layers, initialise
from ct_attn.network.configs import GuidedAttentionConfig, encoder_widths, require_positions
from ct_attn.network.resnet import ResNetEncoder
from ct_attn.network.segmenter import Segmenter, Supervised

__all__ = [
    "ChannelAttention",
    "GuidedAttention",
    "GuidedAttentionConfig",
    "PositionAttention",
    "Refinement",
    "SemanticAutoencoder",
    "require_positions",
]


class PositionAttention(nn.Module):
    """Every position becomes a mean over all positions, weighted by likeness, plus itself.

    out_i = gamma sum_j a_ij v_j + x_i with a_ij = softmax over j of (q_i . k_j): rows sum
    to 1, and gamma is learnt and starts at 0. The a_ij are never held all at once: torch's
    fused attention goes through them in blocks, forward and backward.
    """

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query = layers.convolution(channels, inner, 1)
        self.key = layers.convolution(channels, inner, 1)
        self.value = layers.convolution(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] to the same shape."""
        query, key, value = (_as_positions(part(x)) for part in (self.query, self.key, self.value))
        # The fused kernels want one width; zeros change no scalar product.
        lacking = value.shape[-1] - query.shape[-1]
        query, key = functional.pad(query, (0, lacking)), functional.pad(key, (0, lacking))
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.gamma * mixed[:, 0].transpose(1, 2).reshape(x.shape) + x


class ChannelAttention(nn.Module):
    """Every channel becomes a mean over all channels, weighted by likeness, plus itself.

    out_c = gamma sum_d a_cd x_d + x_c with a_cd = softmax over d of (x_c . x_d).
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] to the same shape."""
        flat = x.flatten(2)
        likeness = torch.softmax(flat @ flat.transpose(1, 2), dim=-1)
        return self.gamma * (likeness @ flat).reshape(x.shape) + x


class SemanticAutoencoder(nn.Module):
    """Encodes features [B, C, ...] at a quarter of the size into 4C channels, and back again."""

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        self.layers = layers
        self.encoder = nn.Sequential(
            DoubleConv(channels, 2 * channels, layers=layers),
            layers.pooling(2),
            DoubleConv(2 * channels, 4 * channels, layers=layers),
            layers.pooling(2),
        )
        self.raised_once = DoubleConv(4 * channels, 2 * channels, layers=layers)
        self.raised_twice = DoubleConv(2 * channels, channels, layers=layers)
        self.out = layers.convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The code and what is decoded from it; the sides are multiples of 4."""
        code = self.encoder(x)
        size = tuple(x.shape[2:])
        half = self.layers.resample(self.raised_once(code), tuple(side // 2 for side in size))
        return code, self.out(self.layers.resample(self.raised_twice(half), size))


class Refinement(nn.Module):
    """One refinement of one stage: both attentions, guided by what an autoencoder decoded."""

    def __init__(self, width: int, layers: Layers) -> None:
        super().__init__()

        def conv(channels: int) -> ConvNormReLU:
            return ConvNormReLU(channels, width, kernel_size=3, layers=layers)

        self.position = nn.Sequential(conv(2 * width), PositionAttention(width, layers), conv(width))
        self.channel = nn.Sequential(conv(2 * width), ChannelAttention(), conv(width))
        self.semantic = conv(2 * width)
        self.combine = conv(width)

    def forward(self, features: Tensor, decoded: Tensor) -> Tensor:
        """Attention [B, width, ...] from ``features`` and ``decoded``, both [B, 2 width, ...]."""
        attended = self.position(features) + self.channel(features)
        refined: Tensor = self.combine(attended * self.semantic(decoded))
        return refined


class GuidedAttention(Segmenter):
    """The whole network. ``forward`` gives the mean of the four refined stages' class maps."""

    class_parts: ClassVar[tuple[str, ...]] = ("plain_heads", "heads")

    def __init__(self, config: GuidedAttentionConfig, *, in_channels: int, n_classes: int) -> None:
        super().__init__(config.size_multiple)
        self.config = config
        self.layers = Layers(dims=config.dims)
        width, layers = config.width, self.layers
        self.resnet = ResNetEncoder(
            config.depth, dims=config.dims, in_channels=in_channels, normalisation=config.normalisation
        )
        stages = encoder_widths(config.depth)[1:]
        self.narrow = nn.ModuleList(
            ConvNormReLU(channels, width, kernel_size=1, layers=layers) for channels in stages
        )
        self.multi_scale = ConvNormReLU(4 * width, width, kernel_size=1, layers=layers)
        self.autoencoders = nn.ModuleList(SemanticAutoencoder(2 * width, layers) for _ in range(2))
        self.refinements = nn.ModuleList(
            nn.ModuleList(Refinement(width, layers) for _ in stages) for _ in range(2)
        )
        self.plain_heads = nn.ModuleList(layers.convolution(width, n_classes, 1) for _ in stages)
        self.heads = nn.ModuleList(layers.convolution(width, n_classes, 1) for _ in stages)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        stages, multi_scale = self._stages(image)
        maps = []
        for level, stage in enumerate(stages):
            refined, _, _ = self._refined(level, stage, multi_scale)
            maps.append(self.heads[level](refined))
        return self._raised(torch.stack(maps).mean(0), image)

    def supervised(self, image: Tensor) -> Supervised:
        """The class maps of all stages before and after attention, and the network's own losses.

        As published: each of the eight counts 1, the guided loss 0.25, reconstruction 0.1.
        """
        stages, multi_scale = self._stages(image)
        logits = [
            self._raised(head(stage), image) for head, stage in zip(self.plain_heads, stages, strict=True)
        ]
        guided = reconstruction = torch.zeros((), device=image.device)
        for level, stage in enumerate(stages):
            refined, codes, error = self._refined(level, stage, multi_scale)
            logits.append(self._raised(self.heads[level](refined), image))
            guided = guided + functional.mse_loss(codes[1].float(), codes[0].float())
            reconstruction = reconstruction + error
        extra = self.config.guided_weight * guided + self.config.reconstruction_weight * reconstruction
        refined_maps = [map_.detach() for map_ in logits[len(stages) :]]
        return Supervised(
            logits=tuple(logits),
            weights=(1.0,) * len(logits),
            extra=extra,
            output=torch.stack(refined_maps).mean(0),
        )

    def _stages(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The four stages on the largest one's grid, and the map made of them all."""
        self.config.require_size(tuple(image.shape[2:]))
        narrowed = [part(stage) for part, stage in zip(self.narrow, self.resnet(image)[1:], strict=True)]
        size = tuple(narrowed[0].shape[2:])
        stages = [narrowed[0], *(self.layers.resample(stage, size) for stage in narrowed[1:])]
        return stages, self.multi_scale(torch.cat(stages, dim=1))

    def _refined(self, level: int, stage: Tensor, multi_scale: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """``stage`` after both refinements, their codes, and the autoencoders' errors."""
        refined, guide, codes = stage, multi_scale, []
        error = torch.zeros((), device=stage.device)
        for autoencoder, refinements in zip(self.autoencoders, self.refinements, strict=True):
            features = torch.cat([stage, guide], dim=1)
            code, decoded = autoencoder(features)
            # What is to be decoded is a target: it must not move towards what decodes easily.
            error = error + functional.mse_loss(decoded.float(), features.detach().float())
            refined = refinements[level](features, decoded)  # type: ignore[index] # a list of modules
            guide = refined * multi_scale
            codes.append(code)
        return refined, codes, error

    def _raised(self, map_: Tensor, image: Tensor) -> Tensor:
        return self.layers.resample(map_, tuple(image.shape[2:]))


def _as_positions(x: Tensor) -> Tensor:
    """[B, C, ...] as [B, 1, positions, C]: one head whose tokens are the positions."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
