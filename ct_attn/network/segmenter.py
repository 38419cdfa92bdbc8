"""What every network here is to the rest of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Supervised:
    """What a training step compares with the labels.

    ``logits``: one or more predictions [B, n_classes, ...]; one smaller than the image
    is compared with labels of its size. ``weights``: what the loss of each counts.
    ``extra``: a loss of the network's own (a scalar), to be added. ``output``: what
    ``forward`` gives of the image, where that is not the first of ``logits``.
    """

    logits: tuple[Tensor, ...]
    weights: tuple[float, ...] = (1.0,)
    extra: Tensor | None = None
    output: Tensor | None = None

    @property
    def prediction(self) -> Tensor:
        """What ``forward`` gives of the image: logits [B, n_classes, ...]."""
        return self.logits[0] if self.output is None else self.output


class Segmenter(nn.Module):
    """An image [B, in_channels, I, J, K] (2D: [B, in_channels, I, J]) in, logits [B, n_classes, ...] out.

    The sides of the image are multiples of ``size_multiple``, per axis. The parts named
    in ``frozen`` (see :func:`ct_attn.network.transfer.freeze`) stay in evaluation mode
    while the rest trains, so that their batch statistics stay what they were.
    ``class_parts``: the parts whose channels are classes.
    """

    class_parts: ClassVar[tuple[str, ...]] = ("heads", "stage_heads", "fuse")

    def __init__(self, size_multiple: tuple[int, ...]) -> None:
        super().__init__()
        self.size_multiple = size_multiple
        self.frozen: tuple[str, ...] = ()

    def supervised(self, image: Tensor) -> Supervised:
        """What training compares with the labels of ``image``: the prediction, unless overridden."""
        return Supervised(logits=(self(image),))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self
