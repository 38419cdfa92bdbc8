"""From a network's config to the network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig
from ct_attn.network.unet import UNet, UNetConfig

NetworkConfig = Annotated[AttentionUNetConfig | UNetConfig, Field(discriminator="kind")]


def build_network(config: AttentionUNetConfig | UNetConfig, *, in_channels: int, n_classes: int) -> UNet:
    """The network that ``config`` describes, with freshly drawn weights."""
    if isinstance(config, AttentionUNetConfig):
        return AttentionUNet(config, in_channels=in_channels, n_classes=n_classes)
    return UNet(config, in_channels=in_channels, n_classes=n_classes)
