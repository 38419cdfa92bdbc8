"""Does a label map lie on its organs? Evidence for each way it may have been flipped.

Where a file's header can't be trusted, the image decides: in the right place an
organ is soft tissue through and through, and its rim is brighter than the fat just
outside of it. A mirrored label cuts across tissue borders at random, so that inside
and outside of its rim look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ct_attn.labels import LabelScheme
from ct_attn.volume import Grid, Mask, Spacing3, Volume, bounding_box

#: What soft tissue measures, with and without contrast medium, less air, fat and bone.
SOFT_TISSUE_HU = (-20, 280)
#: What the rims are clipped to, so that a gas bubble or a rib counts as one voxel does.
RIM_WINDOW_HU = (-120, 200)
#: Thickness of the layers compared on both sides of a label's rim.
RIM_MM = 3.0
#: Finer grids are looked at in steps of no more than this, which tells as much in less memory.
COARSE_ENOUGH_MM = 2.0

#: A label that lies right reaches these with room to spare.
MIN_SOFT_TISSUE_SHARE = 0.65
MIN_EDGE_CONTRAST_HU = 20.0
#: A winner's fit is ahead of every other flip's by this share of its own.
MIN_LEAD = 0.5

_MAX_POINTS = 200_000  # of each kind and organ: more tell no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """Along which axes of the patient a label is mirrored against what its header says."""

    left_right: bool = False
    front_back: bool = False
    up_down: bool = False

    def __str__(self) -> str:
        """Such as ``none`` or ``left-right+front-back``."""
        names = [name for name in _FLIP_NAMES if getattr(self, name.replace("-", "_"))]
        return "+".join(names) or "none"


_FLIP_NAMES = ("left-right", "front-back", "up-down")
AS_STATED = Flip()
ALL_FLIPS = tuple(Flip(left_right=x, front_back=y, up_down=z) for z, y, x in product((False, True), repeat=3))


def parse_flip(text: str) -> Flip:
    """The flip that ``str`` writes like this. Raises ``ValueError`` for anything else."""
    if text == "none":
        return AS_STATED
    names = text.split("+")
    if not set(names) <= set(_FLIP_NAMES):
        raise ValueError(f"{text or 'nothing'} is not none or some of {', '.join(_FLIP_NAMES)}")
    return Flip(**{name.replace("-", "_"): True for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How well a label lies under ``flip``; means over its organs.

    ``mean_hu`` and ``soft_tissue_share`` are measured inside; ``edge_contrast_hu`` is
    the mean HU of the rim's inner layer less that of its outer one.
    """

    flip: Flip
    mean_hu: float
    soft_tissue_share: float
    edge_contrast_hu: float

    @property
    def fit(self) -> float:
        """The edge's contrast, weighted by the share of soft tissue; higher is better."""
        return self.edge_contrast_hu * self.soft_tissue_share

    @property
    def is_plausible(self) -> bool:
        """Whether the label could lie right like this, whatever the other flips give."""
        return (
            self.soft_tissue_share >= MIN_SOFT_TISSUE_SHARE and self.edge_contrast_hu >= MIN_EDGE_CONTRAST_HU
        )

    def describe(self) -> str:
        return (
            f"flip {self.flip}: mean {self.mean_hu:.0f} HU, {self.soft_tissue_share:.0%} soft tissue, "
            f"edge {self.edge_contrast_hu:+.0f} HU"
        )


def turn_to(mask: Mask, orientation: str) -> Mask:
    """``mask`` with its stored axes reordered and reversed to run along ``orientation``.

    Nothing moves in the patient. ``orientation`` is a code such as ``"LPS"``.
    """
    have = mask.grid.orientation
    axes = [next(axis for axis in range(3) if have[axis] in pair) for pair in map(_pair_of, orientation)]
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, wanted) in enumerate(zip(axes, orientation, strict=True)):
        turn[old, new] = 1 if have[old] == wanted else -1
        turn[old, 3] = 0 if have[old] == wanted else mask.grid.shape[old] - 1
    labels = mask.labels.transpose(axes)[
        tuple(slice(None, None, int(turn[old, new])) for new, old in enumerate(axes))
    ]
    i, j, k = labels.shape
    return Mask(labels=labels, grid=Grid(shape=(i, j, k), affine=mask.grid.affine @ turn))


def _pair_of(letter: str) -> str:
    return next(pair for pair in ("RL", "AP", "SI") if letter in pair)


def flipped(labels: NDArray[np.uint8], flip: Flip, orientation: str) -> NDArray[np.uint8]:
    """``labels`` [I, J, K], stored along ``orientation``, mirrored as ``flip`` says (a view)."""
    steps = [-1 if axis else 1 for axis in _flipped_axes(flip, orientation)]
    return labels[tuple(slice(None, None, step) for step in steps)]


def _flipped_axes(flip: Flip, orientation: str) -> list[bool]:
    wanted = {"RL": flip.left_right, "AP": flip.front_back, "SI": flip.up_down}
    return [wanted[_pair_of(letter)] for letter in orientation]


def weigh(
    volume: Volume, labels: NDArray[np.uint8], scheme: LabelScheme, flips: Sequence[Flip] = ALL_FLIPS
) -> list[Evidence]:
    """The evidence for each of ``flips`` of ``labels`` [I, J, K], stored along ``volume``'s axes.

    Organs count alike, whatever their size. Raises ``ValueError`` when the shapes
    differ or nothing is labelled.
    """
    if labels.shape != volume.hu.shape:
        raise ValueError(f"labels {labels.shape} do not fit a scan of {volume.hu.shape}")
    layers = [
        found
        for structure in scheme.structures
        if (found := _layers(labels, structure.code, volume.grid.spacing_mm)) is not None
    ]
    if not layers:
        raise ValueError("nothing is labelled")
    return [_weigh_flip(volume, layers, flip) for flip in flips]


def winner(evidence: Sequence[Evidence]) -> Evidence | None:
    """The flip that alone puts the label on its organs; None where the evidence leaves doubt."""
    ordered = sorted(evidence, key=lambda one: one.fit, reverse=True)
    best, others = ordered[0], ordered[1:]
    if not best.is_plausible or any(one.fit > (1 - MIN_LEAD) * best.fit for one in others):
        return None
    return best


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layers:
    """Voxels [n, 3] inside an organ, and of the layers within and around its rim."""

    inside: NDArray[np.intp]
    inner_rim: NDArray[np.intp]
    outer_rim: NDArray[np.intp]


def _layers(labels: NDArray[np.uint8], code: int, spacing_mm: Spacing3) -> _Layers | None:
    tight = bounding_box(labels == code)
    if tight is None:
        return None
    steps = np.array([max(1, int(COARSE_ENOUGH_MM // step_mm)) for step_mm in spacing_mm])
    box = tuple(
        slice(one.start, one.stop, int(step))
        for one, step in zip(_wider(tight, spacing_mm), steps, strict=True)
    )
    member = labels[box] == code
    spacing_mm = (spacing_mm[0] * steps[0], spacing_mm[1] * steps[1], spacing_mm[2] * steps[2])
    # Grids coarser than the layer still need a voxel in it.
    reach_mm = max(RIM_MM, 1.01 * max(spacing_mm))
    padded = np.pad(member, 1)  # the grid's border counts as an organ's end
    depth_mm = distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    distance_mm = distance_transform_edt(~member, sampling=spacing_mm)
    unlabelled = labels[box] == 0  # a neighbouring organ says nothing about the rim
    start = np.array([one.start for one in box])

    def points(where: NDArray[np.bool_]) -> NDArray[np.intp]:
        found = np.argwhere(where)
        return np.asarray(found[:: max(1, len(found) // _MAX_POINTS)] * steps + start)

    return _Layers(
        inside=points(member),
        inner_rim=points(member & (depth_mm <= reach_mm)),
        outer_rim=points(unlabelled & (distance_mm <= reach_mm)),
    )


def _wider(box: tuple[slice, ...], spacing_mm: Spacing3) -> tuple[slice, ...]:
    """``box`` with room around it for the outer layer."""
    margins = [int(np.ceil(RIM_MM / step_mm)) + 1 for step_mm in spacing_mm]
    return tuple(
        slice(max(0, one.start - margin), one.stop + margin) for one, margin in zip(box, margins, strict=True)
    )


def _weigh_flip(volume: Volume, layers: Sequence[_Layers], flip: Flip) -> Evidence:
    axes = _flipped_axes(flip, volume.grid.orientation)
    last = np.array(volume.hu.shape) - 1

    def hu_at(points: NDArray[np.intp]) -> NDArray[np.float64]:
        i, j, k = np.where(axes, last - points, points).T
        return np.asarray(volume.hu[i, j, k], dtype=np.float64)

    rows = np.zeros((len(layers), 3))
    for row, organ in enumerate(layers):
        inside = hu_at(organ.inside)
        inner, outer = (np.clip(hu_at(rim), *RIM_WINDOW_HU) for rim in (organ.inner_rim, organ.outer_rim))
        low, high = SOFT_TISSUE_HU
        contrast = inner.mean() - outer.mean() if inner.size and outer.size else 0.0
        rows[row] = inside.mean(), np.mean((inside >= low) & (inside <= high)), contrast
    mean_hu, share, contrast_hu = rows.mean(axis=0)
    return Evidence(
        flip=flip,
        mean_hu=float(mean_hu),
        soft_tissue_share=float(share),
        edge_contrast_hu=float(contrast_hu),
    )
