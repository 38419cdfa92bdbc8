"""A network of slices as a network of volumes: every slice by itself, with its neighbours as channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from ct_attn.network.attention_unet import AttentionUNet
from ct_attn.network.configs import SlicesConfig
from ct_attn.network.segmenter import Segmenter, Supervised


class SliceWise(Segmenter):
    """A ``network`` of slices [B, N, i, j] applied to every slice of volumes [B, 1, I, J, K].

    The N channels are a slice and its neighbours. What comes out lies on the volume's
    grid; beyond the volume there are zeros.
    """

    def __init__(self, network: Segmenter, slices: SlicesConfig) -> None:
        in_plane, axis = list(network.size_multiple), slices.axis
        super().__init__((*in_plane[:axis], 1, *in_plane[axis:]))
        self.network = network
        self.slices = slices

    def forward(self, image: Tensor) -> Tensor:
        return self.each_slice(self.network, image)

    def each_slice(self, function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """``function`` of slices [B K, N, i, j] applied to ``image`` [B, 1, I, J, K]: [B, C, I, J, K]."""
        padding = [0] * 6
        place = 2 * (2 - self.slices.axis)  # functional.pad counts from the last axis
        padding[place] = padding[place + 1] = self.slices.halo
        return self._volumes(function(self._stacks(functional.pad(image, padding))), len(image))

    def supervised(self, image: Tensor) -> Supervised:
        """What the network supervises of the slices that have their neighbours in ``image``.

        ``image`` has ``halo`` slices more than the labels on either side. Coarser maps are
        coarser in plane only.
        """
        supervised = self.network.supervised(self._stacks(image))
        logits = tuple(self._volumes(map_, len(image)) for map_ in supervised.logits)
        output = None if supervised.output is None else self._volumes(supervised.output, len(image))
        return Supervised(logits=logits, weights=supervised.weights, extra=supervised.extra, output=output)

    def _stacks(self, image: Tensor) -> Tensor:
        """[B (K - 2 halo), N, i, j]: every slice that has its neighbours, with them as channels."""
        stacked = image[:, 0].unfold(1 + self.slices.axis, self.slices.neighbours, 1).movedim(-1, 1)
        return stacked.movedim(2 + self.slices.axis, 1).flatten(0, 1).contiguous()

    def _volumes(self, maps: Tensor, batch: int) -> Tensor:
        """[B K, C, i, j] as [B, C, I, J, K]."""
        volumes = maps.reshape(batch, -1, *maps.shape[1:])
        return volumes.movedim(1, 2 + self.slices.axis)


def core_of(network: Segmenter) -> Segmenter:
    """The network itself, without what applies it to slices."""
    return network.network if isinstance(network, SliceWise) else network


def gates_of(
    network: nn.Module, *, features: bool = False
) -> tuple[list[str], Callable[[Tensor], Tensor]] | None:
    """The names of the gates of ``network``, and the function from images to their alpha.

    That is :meth:`AttentionUNet.stacked_attention`, or with ``features`` its
    :meth:`AttentionUNet.stacked_features`; None for a network without gates.
    """
    core = core_of(network) if isinstance(network, Segmenter) else network
    if not isinstance(core, AttentionUNet):
        return None
    function = core.stacked_features if features else core.stacked_attention
    if isinstance(network, SliceWise):
        return core.gate_names, lambda image: network.each_slice(function, image)
    return core.gate_names, function
