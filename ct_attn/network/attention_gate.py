"""The additive attention gate of Oktay et al. 2018 (arXiv 1804.03999), section 2.2.

For a skip connection x and a gating signal g from a coarser level, eq. (1) and (2):

    q     = psi^T ReLU(W_x x + W_g g + b_g) + b_psi
    alpha = sigmoid(q)

computed on the coarse grid one level below x, brought to the grid of x, and multiplied
into x.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ct_attn.network.blocks import RELEASED, ConvNormReLU, Layers, Sides
from ct_attn.network.configs import GateActivation


class AdditiveAttention(nn.Module):
    """alpha and what passes it: one gate, up to the convolution that follows it.

    ``theta`` (W_x) is a convolution without bias over blocks of ``stride`` voxels (2x2x2
    as released; 1 computes alpha on the skip's own grid), ``phi`` (W_g) a 1x1x1
    convolution with bias, ``psi`` maps to one channel; the intermediate channels are as
    many as the skip's. ``transform`` (W in the released code) is a 1x1x1 convolution and
    normalisation of the gated skip. ``activation`` turns q into alpha: ``sigmoid``;
    ``softmax`` over all voxels of the coarse grid, on which alpha then sums to 1; or
    ``none``, alpha = q.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        *,
        stride: Sides = 2,
        activation: GateActivation = "sigmoid",
        layers: Layers = RELEASED,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.layers = layers
        self.theta = layers.strided(skip_channels, skip_channels, stride)
        self.phi = layers.convolution(gating_channels, skip_channels, 1)
        self.psi = layers.convolution(skip_channels, 1, 1)
        self.transform = nn.Sequential(
            layers.convolution(skip_channels, skip_channels, 1), layers.normalisation(skip_channels)
        )

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """W(alpha x) [B, C, i, j, k] of ``skip`` [B, C, i, j, k] and ``gating`` [B, G, i', j', k']."""
        return self.attend(skip, gating)

    def attend(self, skip: Tensor, gating: Tensor) -> Tensor:
        passed: Tensor = self.transform(skip * self.coefficients(skip, gating))
        return passed

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """alpha [B, 1, i, j, k] on the skip's grid; in (0, 1) with a sigmoid."""
        theta = self.theta(skip)
        phi = self.layers.resample(self.phi(gating), tuple(theta.shape[2:]))
        alpha = self._activated(self.psi(torch.relu(theta + phi)))
        return self.layers.resample(alpha, tuple(skip.shape[2:]))

    def _activated(self, q: Tensor) -> Tensor:
        if self.activation == "sigmoid":
            return torch.sigmoid(q)
        return torch.softmax(q.flatten(1), dim=1).reshape(q.shape) if self.activation == "softmax" else q


class AttentionGate(AdditiveAttention):
    """One gate per skip, then ``combine``: 1x1x1 convolution, normalisation, activation.

    As the released single-attention network has it.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        *,
        stride: Sides = 2,
        activation: GateActivation = "sigmoid",
        layers: Layers = RELEASED,
    ) -> None:
        super().__init__(skip_channels, gating_channels, stride=stride, activation=activation, layers=layers)
        self.combine = ConvNormReLU(skip_channels, skip_channels, kernel_size=1, layers=layers)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The gated skip [B, C, i, j, k] of ``skip`` [B, C, i, j, k] and ``gating`` [B, G, i', j', k']."""
        gated: Tensor = self.combine(self.attend(skip, gating))
        return gated


class MultiAttentionGate(nn.Module):
    """Two gates on one skip, concatenated, then ``combine`` from 2C channels back to C.

    As the released multi-attention network has it.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        *,
        stride: Sides = 2,
        activation: GateActivation = "sigmoid",
        layers: Layers = RELEASED,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            AdditiveAttention(
                skip_channels, gating_channels, stride=stride, activation=activation, layers=layers
            )
            for _ in range(2)
        )
        self.combine = ConvNormReLU(2 * skip_channels, skip_channels, kernel_size=1, layers=layers)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The gated skip [B, C, i, j, k] of ``skip`` [B, C, i, j, k] and ``gating`` [B, G, i', j', k']."""
        passed = [attention(skip, gating) for attention in self.attentions]
        gated: Tensor = self.combine(torch.cat(passed, dim=1))
        return gated

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """alpha of both gates, [B, 2, i, j, k] on the skip's grid."""
        alphas: list[Tensor] = []
        for attention in self.attentions:
            assert isinstance(attention, AdditiveAttention)
            alphas.append(attention.coefficients(skip, gating))
        return torch.cat(alphas, dim=1)


class Highway(nn.Module):
    """A highway connection around a gate, as the paper's discussion proposes.

    After Srivastava et al. 2015: the share t = sigmoid(W x + b) of the gated skip goes
    on, and 1 - t of the skip as it is; b starts at -1, so that most of the skip goes
    around at first.
    """

    def __init__(self, channels: int, layers: Layers = RELEASED) -> None:
        super().__init__()
        self.share = layers.convolution(channels, channels, 1)

    def forward(self, skip: Tensor, gated: Tensor) -> Tensor:
        """[B, C, i, j, k] of both."""
        share = torch.sigmoid(self.share(skip))
        return share * gated + (1 - share) * skip


def open_highway(highway: nn.Module) -> None:
    """Start ``highway`` with most of the skip going around its gate."""
    assert isinstance(highway, Highway)
    bias = highway.share.bias
    assert isinstance(bias, nn.Parameter)
    nn.init.constant_(bias, -1.0)


def pass_through(gate: nn.Module) -> None:
    """Start ``gate`` with alpha = sigmoid(3) = 0.953 everywhere: psi has weight 0 and bias 3.

    The paper lets features pass at first; the released CT code does not do it. In the
    first step no gradient reaches theta and phi.
    """
    for attention in gate.modules():
        if isinstance(attention, AdditiveAttention):
            psi = attention.psi
            assert isinstance(psi, nn.Conv2d | nn.Conv3d)
            assert psi.bias is not None
            nn.init.zeros_(psi.weight)
            nn.init.constant_(psi.bias, 3.0)
