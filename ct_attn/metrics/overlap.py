"""How much of two structures overlaps, counted in voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Voxels of truth and prediction, counted apart; what the usual ratios are made of.

    A ratio is None where its definition divides 0 by 0, so that a structure that
    is not there never turns into a number: with neither truth nor prediction all
    four; without truth (a spurious prediction) recall; without prediction (a
    missed structure) precision. DSC and Jaccard are 0 in the last two.

    DSC: Dice (1945), Ecology 26:297; Soerensen (1948). Jaccard: Jaccard (1912),
    New Phytologist 11:37. Raises ``ValueError`` when a count is negative.
    """

    true_positive: int
    false_positive: int
    false_negative: int

    def __post_init__(self) -> None:
        if min(self.true_positive, self.false_positive, self.false_negative) < 0:
            raise ValueError(f"voxel counts are at least 0, got {self}")

    @property
    def truth_voxels(self) -> int:
        return self.true_positive + self.false_negative

    @property
    def predicted_voxels(self) -> int:
        return self.true_positive + self.false_positive

    @property
    def dsc(self) -> float | None:
        """2 |T and P| / (|T| + |P|), the Dice similarity coefficient."""
        return _ratio(2 * self.true_positive, self.truth_voxels + self.predicted_voxels)

    @property
    def jaccard(self) -> float | None:
        """|T and P| / |T or P|."""
        return _ratio(self.true_positive, self.truth_voxels + self.false_positive)

    @property
    def precision(self) -> float | None:
        """|T and P| / |P|: the part of the prediction that is right."""
        return _ratio(self.true_positive, self.predicted_voxels)

    @property
    def recall(self) -> float | None:
        """|T and P| / |T|: the part of the truth that was found."""
        return _ratio(self.true_positive, self.truth_voxels)

    def accuracy(self, n_voxels: int) -> float:
        """The part of all ``n_voxels`` that both masks call the same, inside or outside.

        Says little of a small organ: in a scan that is 99 % background it is 0.99 for an
        empty prediction. Raises ``ValueError`` when fewer voxels are given than counted.
        """
        wrong = self.false_positive + self.false_negative
        if n_voxels < max(1, self.true_positive + wrong):
            raise ValueError(f"{self} does not fit into {n_voxels} voxels")
        return 1 - wrong / n_voxels


def count_overlap(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Overlap:
    """The overlap of two bool arrays of one shape (any number of axes).

    Raises ``ValueError`` when they are not bool or not of one shape.
    """
    require_pair(truth, predicted)
    both = int(np.count_nonzero(truth & predicted))
    return Overlap(
        true_positive=both,
        false_positive=int(np.count_nonzero(predicted)) - both,
        false_negative=int(np.count_nonzero(truth)) - both,
    )


def require_pair(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> None:
    """Raise ``ValueError`` unless both are bool arrays of one shape."""
    if truth.dtype != np.bool_ or predicted.dtype != np.bool_:
        raise ValueError(f"masks are bool, got {truth.dtype} and {predicted.dtype}")
    if truth.shape != predicted.shape:
        raise ValueError(f"masks have one shape, got {truth.shape} and {predicted.shape}")


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
