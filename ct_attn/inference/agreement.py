"""How far what was computed more than once agrees: a figure of confidence for every class."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ct_attn.volume import Shape3


def largest(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The first class [...] with the largest of ``logits`` [C, ...].

    Class by class: ``argmax`` over the leading axis takes ten times as long.
    """
    best = logits[0].copy()
    winner = np.zeros(best.shape, dtype=np.uint8)
    for code in range(1, logits.shape[0]):
        np.copyto(winner, code, where=logits[code] > best)
        np.maximum(best, logits[code], out=best)
    return winner


def let_go(layer: NDArray[Any], count: int) -> None:
    """Drop the first ``count`` slices of ``layer`` [..., n]: later ones move up, zeros follow them."""
    kept = layer.shape[-1] - count
    layer[..., :kept] = layer[..., count:].copy()
    layer[..., kept:] = 0


class Agreement:
    """Compares what each window, mirrored copy and model said with the blended outcome.

    Of class c it is 2 sum_v |A_v and B_v| / sum_v (|A_v| + |B_v|): the Dice coefficient of
    all votes v with the outcome, over voxels with at least two votes. A_v are the voxels
    that v gives to c, B_v those of its voxels that the outcome does.

    Votes are counted in the slices that windows still touch, a ``layer`` [I, J, n] of the box
    (:attr:`WindowPlan.layer`): 2 bytes a class and voxel, however many votes there are.
    """

    def __init__(self, n_classes: int, layer: Shape3) -> None:
        self.n_classes = n_classes
        self.votes = np.zeros(layer, dtype=np.uint16)
        self.said = np.zeros((n_classes - 1, *layer), dtype=np.uint16)  # votes for each organ
        self.first = 0  # slice of the box
        self.both = np.zeros(n_classes, dtype=np.int64)
        self.either = np.zeros(n_classes, dtype=np.int64)

    def vote(self, inside: tuple[slice, slice, slice], logits: NDArray[np.float32]) -> None:
        """A window's logits [C, i, j, k] of the part ``inside`` of the box."""
        i, j, k = inside
        k = slice(k.start - self.first, k.stop - self.first)
        labels = largest(logits)
        self.votes[i, j, k] += 1
        for organ, said in enumerate(self.said, start=1):
            said[i, j, k] += labels == organ

    def settle(self, blended: NDArray[np.float32], wanted: NDArray[np.bool_]) -> None:
        """Compare with the outcome, logits [C, I, J, n] of the next slices: nobody votes on them any more.

        Where it is ``wanted`` [I, J, n]: elsewhere (beyond the body) the outcome is not that of votes.
        """
        count = blended.shape[-1]
        votes, said, outcome = self.votes[..., :count], self.said[..., :count], largest(blended)
        twice = (votes > 1) & wanted
        organs = twice & ((outcome != 0) | said.any(axis=0))  # few voxels; the rest is background to all
        became, of_voxel = outcome[organs], votes[organs].astype(np.int64)
        of_organs = np.stack([of_organ[organs] for of_organ in said]).astype(np.int64)
        of_class = np.concatenate([of_voxel[None] - of_organs.sum(axis=0), of_organs])
        self.both += self._sums(became, of_class[became, np.arange(len(became))])
        self.either += of_class.sum(axis=1) + self._sums(became, of_voxel)
        background = int(np.sum(votes, where=twice, dtype=np.int64)) - int(of_voxel.sum())
        self.both[0] += background
        self.either[0] += 2 * background
        self.first += count
        for counts in (self.votes, *self.said):
            let_go(counts, count)

    def _sums(self, classes: NDArray[np.uint8], votes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(classes, weights=votes, minlength=self.n_classes).astype(np.int64)

    def of_classes(self) -> list[float]:
        """The figure of every class, background first; NaN where no two votes covered it."""
        return [
            2 * int(both) / int(either) if either else nan
            for both, either in zip(self.both, self.either, strict=True)
        ]
