"""From a network's config to the network."""

from __future__ import annotations

from ct_attn.network.attention_unet import AttentionUNet
from ct_attn.network.configs import (
    AnyNetworkConfig,
    AttentionUNetConfig,
    GuidedAttentionConfig,
    MonaiAttentionUNetConfig,
    NetworkConfig,
    ResNetAttentionUNetConfig,
    UNetConfig,
)
from ct_attn.network.guided_attention import GuidedAttention
from ct_attn.network.monai_attention_unet import MonaiAttentionUNet
from ct_attn.network.resnet_unet import ResNetAttentionUNet
from ct_attn.network.segmenter import Segmenter
from ct_attn.network.unet import UNet

__all__ = ["AnyNetworkConfig", "NetworkConfig", "build_network"]


def build_network(config: AnyNetworkConfig, *, in_channels: int, n_classes: int) -> Segmenter:
    """The network that ``config`` describes, with freshly drawn weights."""
    match config:
        case AttentionUNetConfig():
            return AttentionUNet(config, in_channels=in_channels, n_classes=n_classes)
        case GuidedAttentionConfig():
            return GuidedAttention(config, in_channels=in_channels, n_classes=n_classes)
        case ResNetAttentionUNetConfig():
            return ResNetAttentionUNet(config, in_channels=in_channels, n_classes=n_classes)
        case MonaiAttentionUNetConfig():
            return MonaiAttentionUNet(config, in_channels=in_channels, n_classes=n_classes)
        case UNetConfig():
            return UNet(config, in_channels=in_channels, n_classes=n_classes)
