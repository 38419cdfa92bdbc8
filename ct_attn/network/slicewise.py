"""A network of slices as a network of volumes: every slice by itself, with its neighbours as channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from ct_attn.network.attention_unet import AttentionUNet
from ct_attn.network.segmenter import Segmenter, Supervised
from ct_attn.strict_model import StrictModel

Plane = Literal["axial", "coronal", "sagittal"]

#: The axis (of R, A and S) across the slices of a plane.
_ACROSS: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


class SlicesConfig(StrictModel):
    """Slices of which plane a 2D network sees, and how many neighbours with each."""

    plane: Plane = "axial"
    """Slices lie in the plane of R and A (``axial``), R and S (``coronal``) or A and S (``sagittal``)."""
    neighbours: int = Field(default=1, ge=1)
    """Slices that are the network's channels, an odd number: 1 is the slice alone, 3 adds one on
    either side ("2.5D"). Beyond the scan's ends there are zeros.
    """
    at_a_time: int = Field(default=16, ge=1)
    """Slices that are predicted together: memory grows with this, the result does not change."""

    @field_validator("neighbours")
    @classmethod
    def _has_a_middle(cls, neighbours: int) -> int:
        if neighbours % 2 == 0:
            raise ValueError(
                f"expected an odd number, the slice and as many on either side, got {neighbours}"
            )
        return neighbours

    @property
    def axis(self) -> int:
        """The axis across the slices: 0 for R, 1 for A, 2 for S."""
        return _ACROSS[self.plane]

    @property
    def order(self) -> tuple[int, int, int]:
        """The axes of R, A and S: the two of the plane, then the one across."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second, self.axis

    @property
    def halo(self) -> int:
        """Neighbours on either side of a slice."""
        return self.neighbours // 2


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
        return Supervised(logits=logits, weights=supervised.weights, extra=supervised.extra)

    def _stacks(self, image: Tensor) -> Tensor:
        """[B (K - 2 halo), N, i, j]: every slice that has its neighbours, with them as channels."""
        stacked = image[:, 0].unfold(1 + self.slices.axis, self.slices.neighbours, 1).movedim(-1, 1)
        return stacked.movedim(2 + self.slices.axis, 1).flatten(0, 1).contiguous()

    def _volumes(self, maps: Tensor, batch: int) -> Tensor:
        """[B K, C, i, j] as [B, C, I, J, K]."""
        return maps.unflatten(0, (batch, -1)).movedim(1, 2 + self.slices.axis)


def core_of(network: Segmenter) -> Segmenter:
    """The network itself, without what applies it to slices."""
    return network.network if isinstance(network, SliceWise) else network


def gates_of(network: nn.Module) -> tuple[list[str], Callable[[Tensor], Tensor]] | None:
    """The names of the gates of ``network``, and the function from images to their alpha.

    That is :meth:`AttentionUNet.stacked_attention`; None for a network without gates.
    """
    core = core_of(network) if isinstance(network, Segmenter) else network
    if not isinstance(core, AttentionUNet):
        return None
    if isinstance(network, SliceWise):
        return core.gate_names, lambda image: network.each_slice(core.stacked_attention, image)
    return core.gate_names, core.stacked_attention
