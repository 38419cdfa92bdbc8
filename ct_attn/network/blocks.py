"""The parts every U-Net here is built of, in 2D or 3D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

from torch import Tensor, nn
from torch.nn import functional

from ct_attn.network.levels import Activation, Dims, Norm

Sides = int | tuple[int, ...]

_Layer = Callable[..., nn.Module]
_CONVOLUTION: dict[int, _Layer] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, _Layer] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOLING: dict[int, _Layer] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_NORM: dict[tuple[str, int], _Layer] = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): lambda channels: nn.InstanceNorm2d(channels, affine=True),
    ("instance", 3): lambda channels: nn.InstanceNorm3d(channels, affine=True),
    ("group", 2): lambda channels: nn.GroupNorm(gcd(8, channels), channels),
    ("group", 3): lambda channels: nn.GroupNorm(gcd(8, channels), channels),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Which layers the blocks are made of; the default is what the authors released.

    ``norm``: group normalisation takes eight groups, or as many as divide both eight
    and the channels. ``norm_bias``: whether a convolution before a normalisation has a
    bias. ``negative_slope``: of a leaky ReLU. ``align_corners``: whether corner voxels
    line up when a map is resampled; switching it changes what trained weights predict.
    """

    dims: Dims = 3
    norm: Norm = "batch"
    norm_bias: bool = True
    activation: Activation = "relu"
    negative_slope: float = 0.01
    align_corners: bool = False

    def convolution(
        self, in_channels: int, out_channels: int, kernel_size: Sides, *, bias: bool = True
    ) -> nn.Module:
        """A convolution that keeps the grid; ``kernel_size`` has odd sides."""
        half = _half(kernel_size)
        return _CONVOLUTION[self.dims](in_channels, out_channels, kernel_size, padding=half, bias=bias)

    def strided(self, in_channels: int, out_channels: int, stride: Sides, *, bias: bool = False) -> nn.Module:
        """A convolution over blocks of ``stride`` voxels, each becoming one."""
        return _CONVOLUTION[self.dims](in_channels, out_channels, stride, stride=stride, bias=bias)

    def transposed(self, in_channels: int, out_channels: int, stride: Sides) -> nn.Module:
        """A transposed convolution in which each voxel becomes a block of ``stride`` voxels."""
        return _TRANSPOSED[self.dims](in_channels, out_channels, stride, stride=stride)

    def overlapping(self, in_channels: int, out_channels: int, stride: tuple[int, ...]) -> nn.Module:
        """A transposed convolution with twice the ``stride`` as kernel, so that its blocks overlap.

        The grid grows by ``stride`` as in :meth:`transposed`; an axis with stride 1 has
        kernel 1. Raises :class:`ValueError` for an odd stride above 1.
        """
        if any(side > 1 and side % 2 for side in stride):
            raise ValueError(f"overlapping blocks need strides of 1 or even ones, got {stride}")
        kernel = tuple(2 * side if side > 1 else 1 for side in stride)
        padding = tuple(side // 2 for side in stride)
        return _TRANSPOSED[self.dims](in_channels, out_channels, kernel, stride=stride, padding=padding)

    def pooling(self, size: Sides) -> nn.Module:
        return _POOLING[self.dims](size)

    def normalisation(self, channels: int) -> nn.Module:
        return _NORM[self.norm, self.dims](channels)

    def activated(self) -> nn.Module:
        """The activation as a layer; a leaky ReLU has ``negative_slope`` below 0."""
        if self.activation == "relu":
            return nn.ReLU(inplace=True)
        return nn.LeakyReLU(self.negative_slope, inplace=True)

    def resample(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        return resample(x, size, align_corners=self.align_corners)


RELEASED = Layers()


class ConvNormReLU(nn.Sequential):
    """Convolution, normalisation (unless ``normalised`` is off), activation; the grid size is kept."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sides,
        layers: Layers = RELEASED,
        normalised: bool = True,
    ) -> None:
        bias = layers.norm_bias or not normalised
        super().__init__(
            layers.convolution(in_channels, out_channels, kernel_size, bias=bias),
            *([layers.normalisation(out_channels)] if normalised else []),
            layers.activated(),
        )


class DoubleConv(nn.Sequential):
    """Two :class:`ConvNormReLU`, by default 3x3x3: the content of every U-Net level."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sides = 3,
        layers: Layers = RELEASED,
        normalised: bool = True,
    ) -> None:
        super().__init__(
            *(
                ConvNormReLU(
                    channels, out_channels, kernel_size=kernel_size, layers=layers, normalised=normalised
                )
                for channels in (in_channels, out_channels)
            )
        )


def resample(x: Tensor, size: tuple[int, ...], *, align_corners: bool = False) -> Tensor:
    """``x`` [B, C, i, j, k] or [B, C, i, j] brought (tri- or bi-)linearly to the grid ``size``."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    mode = "trilinear" if x.dim() == 5 else "bilinear"
    return functional.interpolate(x, size=size, mode=mode, align_corners=align_corners)


def initialise(network: nn.Module) -> None:
    """Kaiming-normal convolutions (fan in), normalisation weights N(1, 0.02) and biases 0.

    As the code released with Oktay et al. 2018 does.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(
            module, nn.BatchNorm2d | nn.BatchNorm3d | nn.InstanceNorm2d | nn.InstanceNorm3d | nn.GroupNorm
        ):
            nn.init.normal_(module.weight, mean=1.0, std=0.02)
            nn.init.zeros_(module.bias)


def _half(kernel_size: Sides) -> Sides:
    """The padding under which a convolution keeps the grid."""
    return kernel_size // 2 if isinstance(kernel_size, int) else tuple(side // 2 for side in kernel_size)
