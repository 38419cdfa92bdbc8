"""The gated decoder of the Attention U-Net on a ResNet encoder."""

from __future__ import annotations

from torch import Tensor

from ct_attn.network.attention_unet import AttentionUNet
from ct_attn.network.configs import ResNetAttentionUNetConfig
from ct_attn.network.levels import LevelsConfig, require_multiple
from ct_attn.network.resnet import ResNetEncoder

__all__ = ["ResNetAttentionUNet", "ResNetAttentionUNetConfig"]


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
