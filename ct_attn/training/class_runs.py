"""Where each class lies in a label map, compact enough to draw a voxel of it without a search.

Organs are made of runs: stretches of voxels with one code that follow one another in
the array's order. A few thousand runs stand for millions of voxels, the background's
included, and every voxel of a class stays equally likely to be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassRuns:
    """The runs of a label map, class after class; all tensors int64.

    ``starts`` [N]: flat index of each run's first voxel. ``before`` [N]: voxels of the
    same class in the runs before it. ``first`` [C + 1]: the first run of each class, and
    N. ``voxels`` [C]: how many voxels each class has.
    """

    starts: Tensor
    before: Tensor
    first: Tensor
    voxels: Tensor

    @property
    def present(self) -> list[int]:
        """The classes that occur."""
        return [int(code) for code in torch.nonzero(self.voxels)]

    def voxel(self, code: int, rank: int) -> int:
        """The flat index of voxel ``rank`` of class ``code``, counted in the array's order.

        Raises ``IndexError`` when the class has no such voxel.
        """
        if not 0 <= rank < int(self.voxels[code]):
            raise IndexError(f"class {code} has {int(self.voxels[code])} voxels, none of rank {rank}")
        runs = slice(int(self.first[code]), int(self.first[code + 1]))
        run = int(torch.searchsorted(self.before[runs], rank, right=True)) - 1
        return int(self.starts[runs][run]) + rank - int(self.before[runs][run])


def find_runs(labels: NDArray[np.uint8], n_classes: int) -> ClassRuns:
    """The runs of ``labels`` (any shape, codes below ``n_classes``) in C order."""
    flat = labels.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype(np.int64)
    lengths = np.diff(starts, append=flat.size)
    codes = flat[starts]
    order = np.argsort(codes, kind="stable")
    starts, lengths, codes = starts[order], lengths[order], codes[order]
    first = np.searchsorted(codes, np.arange(n_classes + 1))
    total = np.concatenate([[0], np.cumsum(lengths)])
    voxels = np.diff(total[first])
    before = total[:-1] - np.repeat(total[first[:-1]], np.diff(first))
    return ClassRuns(
        starts=torch.from_numpy(starts),
        before=torch.from_numpy(before.astype(np.int64)),
        first=torch.from_numpy(first.astype(np.int64)),
        voxels=torch.from_numpy(voxels.astype(np.int64)),
    )
