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
    SlicesConfig,
    UNetConfig,
)
from ct_attn.network.guided_attention import GuidedAttention
from ct_attn.network.monai_attention_unet import MonaiAttentionUNet
from ct_attn.network.resnet_unet import ResNetAttentionUNet
from ct_attn.network.segmenter import Segmenter
from ct_attn.network.slicewise import SliceWise
from ct_attn.network.unet import UNet

__all__ = ["AnyNetworkConfig", "NetworkConfig", "build_network"]


def build_network(
    config: AnyNetworkConfig, *, in_channels: int, n_classes: int, slices: SlicesConfig | None = None
) -> Segmenter:
    """The network that ``config`` describes, with freshly drawn weights.

    With ``slices``, a 2D network takes a slice and its neighbours as channels and is
    applied to every slice of a volume of one channel.
    """
    if slices is None:
        return _built(config, in_channels=in_channels, n_classes=n_classes)
    network = _built(config, in_channels=slices.neighbours, n_classes=n_classes)
    return SliceWise(network, slices)


def _built(config: AnyNetworkConfig, *, in_channels: int, n_classes: int) -> Segmenter:
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
