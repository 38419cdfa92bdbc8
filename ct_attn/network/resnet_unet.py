"""The gated decoder of the Attention U-Net on a ResNet encoder."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import model_validator
from torch import Tensor

from ct_attn.network.attention_unet import AttentionUNet, GatesConfig
from ct_attn.network.levels import Count, LevelsConfig, require_multiple
from ct_attn.network.resnet import Depth, ImageNorm, ResNetEncoder, Shortcut, encoder_widths


class ResNetAttentionUNetConfig(GatesConfig):
    """An Attention U-Net whose levels below the finest are a ResNet's feature maps.

    ``widths`` follow from depth and finest width and need not be given; every pooling is 2.
    Norm and activation are the decoder's; the ResNet has batch normalisation and ReLU.
    """

    kind: Literal["resnet_attention_unet"] = "resnet_attention_unet"
    depth: Depth = 18
    """Of the ResNet."""
    finest_width: Count = 16
    """Channels of the plain level at full resolution, which the ResNet does not have."""
    shortcut: Shortcut = "convolution"
    """How the ResNet goes around a stage that changes size: a 1x1x1 convolution, or padding with
    empty channels (MedicalNet's 18 and 34).
    """
    normalisation: ImageNorm = "none"
    """Of the image, 0 to 1, in front of the ResNet: ``imagenet`` for torchvision's weights, (x - mean)
    / std of red, green and blue for three neighbours, else 0.449 and 0.226 for all.
    """

    @model_validator(mode="before")
    @classmethod
    def _widths_follow(cls, fields: Any) -> Any:
        depth: Any = fields.get("depth", 18) if isinstance(fields, dict) else None
        if depth not in get_args(Depth):
            return fields  # what is wrong with it is said below
        widths = (fields.get("finest_width", 16), *encoder_widths(depth))
        if tuple(fields.get("widths", widths)) != widths:
            raise ValueError(
                f"widths: a ResNet of depth {depth} fixes them to {list(widths)}; leave them out"
            )
        return {**fields, "widths": widths}

    @model_validator(mode="after")
    def _poolings_are_the_resnets(self) -> ResNetAttentionUNetConfig:
        if any(side != 2 for sides in self.pool_sizes for side in sides):
            raise ValueError("pool_size: a ResNet halves every axis at every level; leave it out")
        return self


class ResNetAttentionUNet(AttentionUNet):
    """An :class:`AttentionUNet` with a :class:`ResNetEncoder` below a plain level at full resolution."""

    def __init__(self, config: ResNetAttentionUNetConfig, *, in_channels: int, n_classes: int) -> None:
        super().__init__(config, in_channels=in_channels, n_classes=n_classes)

    def _build_encoder(self, config: LevelsConfig, *, in_channels: int) -> None:
        assert isinstance(config, ResNetAttentionUNetConfig)
        self.finest = self._double(config, in_channels, 0)
        self.resnet = ResNetEncoder(
            config.depth,
            dims=config.dims,
            in_channels=in_channels,
            shortcut=config.shortcut,
            normalisation=config.normalisation,
        )

    def encode(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The finest level's features and the ResNet's, as skips; the ResNet's last as the center's."""
        require_multiple(tuple(image.shape[2:]), self.size_multiple)
        features = [self.run(self.finest, image)]
        x = image
        for stage in self.resnet.stages():
            x = self.run(stage, x)
            features.append(x)
        return features[:-1], features[-1]
