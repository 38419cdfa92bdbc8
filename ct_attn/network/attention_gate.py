"""The additive attention gate of Oktay et al. 2018 (arXiv 1804.03999), section 2.2.

For a skip connection x and a gating signal g from one level below, eq. (1) and (2):

    q     = psi^T ReLU(W_x x + W_g g + b_g) + b_psi
    alpha = sigmoid(q)

computed on the coarse grid of g, brought to the grid of x, and multiplied into x.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ct_attn.network.blocks import ConvNormReLU, resample


class AttentionGate(nn.Module):
    """Lets through what the gating signal finds relevant in a skip connection.

    ``theta`` (W_x) is a 2x2x2 convolution of stride 2 without bias, ``phi`` (W_g) a
    1x1x1 convolution with bias, ``psi`` maps to one channel; the intermediate
    channels are as many as the skip's. After gating, ``transform`` (1x1x1 convolution
    and batch normalisation) and ``combine`` (1x1x1 convolution, batch normalisation,
    ReLU) follow, as in the code the authors released.
    """

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv3d(skip_channels, skip_channels, kernel_size=2, stride=2, bias=False)
        self.phi = nn.Conv3d(gating_channels, skip_channels, kernel_size=1)
        self.psi = nn.Conv3d(skip_channels, 1, kernel_size=1)
        self.transform = nn.Sequential(
            nn.Conv3d(skip_channels, skip_channels, kernel_size=1), nn.BatchNorm3d(skip_channels)
        )
        self.combine = ConvNormReLU(skip_channels, skip_channels, kernel_size=1)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The gated skip [B, C, i, j, k] of ``skip`` [B, C, i, j, k] and ``gating`` [B, G, i', j', k']."""
        gated: Tensor = self.combine(self.transform(skip * self.coefficients(skip, gating)))
        return gated

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """alpha in (0, 1), [B, 1, i, j, k] on the skip's grid."""
        theta = self.theta(skip)
        phi = resample(self.phi(gating), theta.shape[2:])
        alpha = torch.sigmoid(self.psi(torch.relu(theta + phi)))
        return resample(alpha, skip.shape[2:])
