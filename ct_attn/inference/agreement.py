"""How far what was computed more than once agrees: a figure of confidence for every class."""

from __future__ import annotations

from math import nan

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


class Agreement:
    """Compares what each window, mirrored copy and model said with the blended outcome.

    Of class c it is 2 sum_v |A_v and B_v| / sum_v (|A_v| + |B_v|): the Dice coefficient of
    all votes v with the outcome, over voxels with at least two votes. A_v are the voxels
    that v gives to c, B_v those of its voxels that the outcome does.
    """

    def __init__(self, n_classes: int, box: Shape3) -> None:
        self.n_classes = n_classes
        self.votes: list[tuple[tuple[slice, slice, slice], NDArray[np.uint8]]] = []
        self.box = box
        self.both = np.zeros(n_classes, dtype=np.int64)
        self.either = np.zeros(n_classes, dtype=np.int64)

    def vote(self, inside: tuple[slice, slice, slice], logits: NDArray[np.float32]) -> None:
        """A window's logits [C, i, j, k] of the part ``inside`` of the box."""
        self.votes.append((inside, largest(logits)))

    def settle(self, first: int, blended: NDArray[np.float32]) -> None:
        """Compare with the outcome, logits [C, I, J, n] of the slices from ``first`` on."""
        end = first + blended.shape[-1]
        outcome = largest(blended)
        counts = np.zeros(outcome.shape, dtype=np.uint16)
        present = [(i, j, k, labels) for (i, j, k), labels in self.votes if k.start < end]
        for i, j, k, _ in present:
            counts[i, j, max(0, k.start - first) : k.stop - first] += 1
        for i, j, k, labels in present:
            begin, stop = max(k.start, first), min(k.stop, end)
            here = (i, j, slice(begin - first, stop - first))
            twice = counts[here] > 1
            said, became = labels[..., begin - k.start : stop - k.start], outcome[here]
            organs = twice & ((said | became) != 0)  # few voxels; the others are background to both
            said, became = said[organs], became[organs]
            self.both += self._count(said[said == became])
            self.either += self._count(said) + self._count(became)
            background = np.count_nonzero(twice) - len(said)
            self.both[0] += background
            self.either[0] += 2 * background
        self.votes = [vote for vote in self.votes if vote[0][2].stop > end]

    def _count(self, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=self.n_classes).astype(np.int64)

    def of_classes(self) -> list[float]:
        """The figure of every class, background first; NaN where no two votes covered it."""
        return [
            2 * int(both) / int(either) if either else nan
            for both, either in zip(self.both, self.either, strict=True)
        ]
