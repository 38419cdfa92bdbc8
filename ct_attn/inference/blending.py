"""Windows of logits blended into slabs that are finished one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ct_attn.inference.agreement import Agreement, let_go
from ct_attn.inference.windows import WindowPlan, gaussian_weight, take
from ct_attn.volume import Shape3

Image = NDArray[np.float32]
#: A window [I, J, K] in, what each member of an ensemble makes of it out: float32 [C, I, J, K] each.
Members = Callable[[Image], Iterable[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slab:
    """Finished ``values`` [C, I, J, n] of a box's slices from ``first`` on.

    They are good until the next slab is asked for.
    """

    first: int
    values: NDArray[np.float32]


def in_axes(
    order: Shape3, members: Members, image: Image, plan: WindowPlan
) -> tuple[Members, Image, WindowPlan]:
    """What :func:`blended` takes, along R, A and S, for blending along axes that are ``order`` of those."""
    back = [order.index(axis) for axis in range(3)]

    def reordered(window: Image) -> Iterator[NDArray[np.float32]]:
        for logits in members(window.transpose(back)):
            yield logits.transpose(0, *(1 + axis for axis in order))

    return reordered, image.transpose(order), plan.ordered(order)


def blended(
    members: Members,
    image: Image,
    plan: WindowPlan,
    *,
    n_classes: int,
    origin: Shape3 = (0, 0, 0),
    wanted: NDArray[np.bool_] | None = None,
    agreement: Agreement | None = None,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Slab]:
    """The logits of the box at ``origin`` of ``image`` [I, J, K], slab after slab.

    Every window of ``plan`` counts with a Gaussian weight around its centre, members of an
    ensemble alike. Windows are computed by rising slice, and slices that no later window
    touches are handed out, so that one layer of windows is held at a time. Windows without
    a voxel of ``wanted`` (bool, as the box) are left out; where none looked, and outside
    of ``wanted``, the logits are certain of class 0. ``agreement`` hears what every window
    said on its own.
    """
    layer = _Layer(plan, n_classes, agreement)
    done = 0
    layers = [list(group) for _, group in groupby(plan.starts, key=lambda start: start[2])]
    for number, starts in enumerate(layers):
        for start in starts:
            begin = tuple(first + offset for first, offset in zip(start, origin, strict=True))
            inner = layer.inside(start)
            if wanted is None or wanted[inner].any():
                window = take(image, (begin[0], begin[1], begin[2]), plan.size)
                for logits in members(window):
                    layer.add(start, logits)
            done += 1
            on_window(done, len(plan.starts))
        last = number + 1 == len(layers)
        slab = layer.finish(plan.box[2] if last else layers[number + 1][0][2], wanted)
        yield slab
        layer.move(slab.values.shape[3])


def _weight(plan: WindowPlan) -> Image:
    """The weight of each voxel of a window; slices that are taken one by one weigh the same."""
    sides = list(plan.size)
    if plan.across is not None:
        sides[plan.across] = 1
    return np.broadcast_to(gaussian_weight((sides[0], sides[1], sides[2])), plan.size)


#: Logits of voxels that nobody looked at: the chance of any organ there is below 1e-20.
CERTAIN = 50.0


#: Below any weight that a window gives.
_TINY = np.float32(1e-12)


class _Layer:
    """Sums of weighted logits in the slices that windows still touch."""

    def __init__(self, plan: WindowPlan, n_classes: int, agreement: Agreement | None) -> None:
        self.plan = plan
        self.agreement = agreement
        self.first = 0  # slice of the box
        self.weight = _weight(plan)
        self.weights = np.zeros(plan.layer, dtype=np.float32)
        self.sums = np.zeros((n_classes, *self.weights.shape), dtype=np.float32)

    def inside(self, start: Shape3) -> tuple[slice, ...]:
        """The part of the box that the window at ``start`` covers, where it counts."""
        parts = []
        for axis, (begin, side, length) in enumerate(zip(start, self.plan.size, self.plan.box, strict=True)):
            halo = self.plan.halo if axis == self.plan.across else 0
            first = begin + halo if begin > 0 else 0
            last = begin + side - halo if begin + side < length else length
            parts.append(slice(first, last))
        return tuple(parts)

    def add(self, start: Shape3, logits: NDArray[np.float32]) -> None:
        i, j, k = self.inside(start)
        of_window = tuple(
            slice(s.start - begin, s.stop - begin) for s, begin in zip((i, j, k), start, strict=True)
        )
        here = (i, j, slice(k.start - self.first, k.stop - self.first))
        weight = self.weight[of_window]
        self.weights[here] += weight
        for sums, logit in zip(self.sums, logits, strict=True):
            sums[here] += logit[of_window] * weight
        if self.agreement is not None:
            self.agreement.vote((i, j, k), logits[(slice(None), *of_window)])

    def finish(self, end: int, wanted: NDArray[np.bool_] | None) -> Slab:
        """The means of the slices up to ``end``, which no later window touches.

        They are a view: :meth:`move` once they have been used.
        """
        count = end - self.first
        first, self.first = self.first, end
        weights = self.weights[..., :count]
        seen = weights > 0
        if wanted is not None:
            seen &= wanted[..., first:end]
        values = self.sums[..., :count]
        values /= np.maximum(weights, _TINY)
        if not seen.all():
            values *= seen
            values[0] += CERTAIN * ~seen
        if self.agreement is not None:
            self.agreement.settle(values, seen)
        return Slab(first=first, values=values)

    def move(self, count: int) -> None:
        """Let go of the first ``count`` slices."""
        for array in (self.weights, *self.sums):
            let_go(array, count)
