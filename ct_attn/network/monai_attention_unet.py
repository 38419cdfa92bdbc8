"""MONAI's AttentionUnet, a peer to compare with. It is not the paper's network.

Its gates work at full resolution on an already upsampled map, all skips are gated, there
is no deep supervision, and the decoder normalises per instance.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ct_attn.network.configs import MonaiAttentionUNetConfig
from ct_attn.network.levels import require_multiple
from ct_attn.network.segmenter import Segmenter

__all__ = ["MonaiAttentionUNet", "MonaiAttentionUNetConfig"]


class MonaiAttentionUNet(Segmenter):
    """``monai.networks.nets.AttentionUnet`` with sizes refused as all networks here do.

    5,909,164 parameters with the default widths, 1 channel in and 4 classes.
    """

    class_parts: ClassVar[tuple[str, ...]] = ("model.model.2",)

    def __init__(self, config: MonaiAttentionUNetConfig, *, in_channels: int, n_classes: int) -> None:
        # Seconds to import, and no other network needs it.
        from monai.networks.nets import AttentionUnet  # noqa: PLC0415

        super().__init__(config.size_multiple)
        self.model = AttentionUnet(
            config.dims, in_channels, n_classes, config.widths, strides=(2,) * (len(config.widths) - 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        require_multiple(tuple(image.shape[2:]), self.size_multiple)
        logits: Tensor = self.model(image)
        return logits
