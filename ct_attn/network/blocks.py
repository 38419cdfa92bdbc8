"""The parts every U-Net here is built of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

#: Whether corner voxels line up when maps are resampled. Recorded because switching
#: it changes what trained weights predict.
ALIGN_CORNERS = False


class ConvNormReLU(nn.Sequential):
    """Convolution (with bias), batch normalisation, ReLU; the grid size is kept."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
        )


class DoubleConv(nn.Sequential):
    """Two 3x3x3 :class:`ConvNormReLU`, the content of every U-Net level."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvNormReLU(in_channels, out_channels, kernel_size=3),
            ConvNormReLU(out_channels, out_channels, kernel_size=3),
        )


def resample(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """``x`` [B, C, i, j, k] brought trilinearly to the grid ``size``."""
    return functional.interpolate(x, size=size, mode="trilinear", align_corners=ALIGN_CORNERS)


def initialise(network: nn.Module) -> None:
    """Kaiming-normal convolutions (fan in), batch-norm weights N(1, 0.02) and biases 0.

    As the code released with Oktay et al. 2018 does.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.weight, mean=1.0, std=0.02)
            nn.init.zeros_(module.bias)
