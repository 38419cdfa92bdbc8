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

from ct_attn.network.blocks import RELEASED, ConvNormReLU, Layers
from ct_attn.network.gate_form import GateForm, GatePart

AS_RELEASED = GateForm()


class AdditiveAttention(nn.Module):
    """alpha and what passes it: one gate, up to the convolution that follows it.

    ``theta`` (W_x) goes over blocks of the skip's voxels: a convolution without bias, as
    released, or with one where it is pooled or normalised, as the other write-ups have it.
    ``phi`` (W_g) is a 1x1x1 convolution with bias, ``psi`` maps to alpha's channels.
    ``transform`` is W of the released code.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        *,
        form: GateForm = AS_RELEASED,
        layers: Layers = RELEASED,
    ) -> None:
        super().__init__()
        self.form = form
        self.layers = layers
        inner = max(1, skip_channels // form.inner_share)
        alphas = skip_channels if form.coefficients == "per_channel" else 1
        self.signal = (
            ConvNormReLU(gating_channels, gating_channels, kernel_size=1, layers=layers)
            if form.own_signal
            else nn.Identity()
        )
        self.theta = self._theta(skip_channels, inner)
        self.phi = self._part("phi", gating_channels, inner)
        self.psi = self._part("psi", inner, alphas)
        self.raiser = (
            layers.transposed(1, skip_channels, form.stride)
            if form.coefficients == "raised"
            else nn.Identity()
        )
        self.transform = (
            nn.Identity()
            if form.output == "plain"
            else nn.Sequential(
                layers.convolution(skip_channels, skip_channels, 1), layers.normalisation(skip_channels)
            )
        )

    def _theta(self, skip_channels: int, inner: int) -> nn.Module:
        form, layers = self.form, self.layers
        if form.theta == "pooled":
            return nn.Sequential(layers.pooling(form.stride), self._part("theta", skip_channels, inner))
        if "theta" in form.norms:
            strided = layers.strided(skip_channels, inner, form.stride, bias=True)
            return nn.Sequential(strided, layers.normalisation(inner))
        return layers.strided(skip_channels, inner, form.stride)

    def _part(self, name: GatePart, in_channels: int, out_channels: int) -> nn.Module:
        convolution = self.layers.convolution(in_channels, out_channels, 1)
        if name not in self.form.norms:
            return convolution
        return nn.Sequential(convolution, self.layers.normalisation(out_channels))

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """W(alpha x) [B, C, i, j, k] of ``skip`` [B, C, i, j, k] and ``gating`` [B, G, i', j', k']."""
        return self.attend(skip, gating)

    def attend(self, skip: Tensor, gating: Tensor) -> Tensor:
        passed: Tensor = self.transform(skip * self.coefficients(skip, gating))
        return passed

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """alpha [B, 1 or C, i, j, k] on the skip's grid; in (0, 1) with a sigmoid, unless raised."""
        theta = self.theta(skip)
        size = tuple(theta.shape[2:])
        gating = self.signal(gating)
        if "phi" in self.form.norms:  # normalised over the grid on which it is added
            phi = self.phi(self.layers.resample(gating, size))
        else:  # the same either way, and cheaper on the coarse grid
            phi = self.layers.resample(self.phi(gating), size)
        alpha = self._activated(self.psi(torch.relu(theta + phi)))
        return self.layers.resample(self.raiser(alpha), tuple(skip.shape[2:]))

    def _activated(self, q: Tensor) -> Tensor:
        if self.form.activation == "sigmoid":
            return torch.sigmoid(q)
        if self.form.activation == "none":
            return q
        return torch.softmax(q.flatten(2), dim=2).reshape(q.shape)


class AttentionGate(AdditiveAttention):
    """One gate per skip, then (unless its form leaves it out) ``combine``.

    That is a 1x1x1 convolution, normalisation, activation, as the released
    single-attention network has it.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        *,
        form: GateForm = AS_RELEASED,
        layers: Layers = RELEASED,
    ) -> None:
        super().__init__(skip_channels, gating_channels, form=form, layers=layers)
        self.combine = (
            ConvNormReLU(skip_channels, skip_channels, kernel_size=1, layers=layers)
            if form.output == "combined"
            else nn.Identity()
        )

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The gated skip [B, C, i, j, k] of ``skip`` [B, C, i, j, k] and ``gating`` [B, G, i', j', k']."""
        gated: Tensor = self.combine(self.attend(skip, gating))
        return gated

    def each(self, skip: Tensor, gating: Tensor) -> list[Tensor]:
        """alpha alone, as :class:`MultiAttentionGate` gives that of both its gates."""
        return [self.coefficients(skip, gating)]

    def maps(self, skip: Tensor, gating: Tensor) -> Tensor:
        """alpha as one map [B, 1, i, j, k]: the mean over its channels where it has several."""
        return self.coefficients(skip, gating).mean(dim=1, keepdim=True)


class MultiAttentionGate(nn.Module):
    """Two gates on one skip, concatenated, then ``combine`` from 2C channels back to C.

    As the released multi-attention network has it.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        *,
        form: GateForm = AS_RELEASED,
        layers: Layers = RELEASED,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            AdditiveAttention(skip_channels, gating_channels, form=form, layers=layers) for _ in range(2)
        )
        self.combine = ConvNormReLU(2 * skip_channels, skip_channels, kernel_size=1, layers=layers)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The gated skip [B, C, i, j, k] of ``skip`` [B, C, i, j, k] and ``gating`` [B, G, i', j', k']."""
        passed = [attention(skip, gating) for attention in self.attentions]
        gated: Tensor = self.combine(torch.cat(passed, dim=1))
        return gated

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """alpha of both gates, [B, 2, i, j, k] on the skip's grid, or [B, 2C, i, j, k] per channel."""
        return torch.cat(self.each(skip, gating), dim=1)

    def each(self, skip: Tensor, gating: Tensor) -> list[Tensor]:
        """alpha of either gate, each [B, 1 or C, i, j, k]."""
        gates = [attention for attention in self.attentions if isinstance(attention, AdditiveAttention)]
        return [gate.coefficients(skip, gating) for gate in gates]

    def maps(self, skip: Tensor, gating: Tensor) -> Tensor:
        """alpha of both gates as one map each, [B, 2, i, j, k]."""
        return torch.cat([alpha.mean(dim=1, keepdim=True) for alpha in self.each(skip, gating)], dim=1)


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
