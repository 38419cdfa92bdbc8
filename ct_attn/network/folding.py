"""A trained network for prediction only: batch normalisation inside the convolution before it."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy of ``network`` in evaluation mode, equal to rounding, that runs fewer layers.

    In evaluation a batch normalisation scales and shifts every channel by constants, which
    the convolution before it can do as well. Only neighbours in an ``nn.Sequential`` are
    joined; other normalisations depend on the image and stay.
    """
    copy = deepcopy(network).eval()
    for part in list(copy.modules()):
        if isinstance(part, nn.Sequential):
            _fold_neighbours(part)
    return copy


def _fold_neighbours(layers: nn.Sequential) -> None:
    for place in range(len(layers) - 1):
        convolution, norm = layers[place], layers[place + 1]
        if isinstance(convolution, _ConvNd) and isinstance(norm, _BatchNorm) and not convolution.transposed:
            layers[place] = fuse_conv_bn_eval(convolution, norm)
            layers[place + 1] = nn.Identity()
