"""Organs as layers painted one over the other on the sample points of a scan.

A layer is a solid with coats: each coat covers the solid up to its own distance
from the surface, so that fat, wall and contents of one organ share one distance.
What is painted later hides what was there, in the image and in the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ct_attn.datasets.phantom.fields import Axes, Float32, Float64, LatticeField
from ct_attn.datasets.phantom.pose import Pose
from ct_attn.datasets.phantom.shapes import Solid

Window = tuple[slice, slice, slice]
#: HU, or a function of the sample points that gives HU for each of them.
Paint = float | Callable[["Samples"], Float32]

#: Distance that stands for "not near", in mm.
FAR_MM = 60.0
#: Width over which neighbouring tissues blend, in mm.
_EDGE_MM = 0.9
_SPARE_MM = 3.0


class Samples:
    """Sample points [nz, ny, nx] with their body coordinates and named smooth fields.

    Body coordinates are computed once; a window shares them. Named fields, such as
    ``"texture"``, are computed where and when they are asked for.
    """

    def __init__(
        self, axes_mm: Axes, body: tuple[Float32, Float32, Float32], fields: dict[str, LatticeField]
    ) -> None:
        self.axes_mm = axes_mm
        self.x, self.y, self.z = body
        self._fields = fields

    def window(self, window: Window) -> Samples:
        """The samples of a box of indices (z, y, x); arrays are views."""
        axes = tuple(positions[cut] for positions, cut in zip(self.axes_mm, window[::-1], strict=True))
        body = (self.x[window], self.y[window], self.z[window])
        return Samples((axes[0], axes[1], axes[2]), body, self._fields)

    def field(self, name: str) -> Float32:
        return self._fields[name].sample(self.axes_mm)

    @cached_property
    def texture(self) -> Float32:
        """Fine tissue texture: standard deviation 1, details of a centimetre."""
        return self.field("texture")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coat:
    """``paint`` wherever the distance to the surface is below ``reach_mm``; ``label`` is written there."""

    paint: Paint
    reach_mm: float = 0.0
    label: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One painted structure.

    ``solids`` are united, then deformed by the ``wobble`` fields (mm), grown by
    ``grow_mm``, hollowed by ``carved`` and kept where the named field ``within`` is
    below ``-inset_mm``. A layer without solids fills that named field alone.
    ``boxes_mm`` [n, 2, 3] bound solids and carved in the scanner.
    """

    name: str
    coats: tuple[Coat, ...]
    solids: tuple[Solid, ...] = ()
    carved: tuple[Solid, ...] = ()
    wobble: tuple[LatticeField, ...] = ()
    within: str = ""
    inset_mm: float = 0.0
    grow_mm: float = 0.0
    boxes_mm: Float64 = field(default_factory=lambda: np.zeros((0, 2, 3)))

    def grown(self, grow_mm: float) -> Layer:
        """The same layer with its surface ``grow_mm`` further out."""
        return replace(self, grow_mm=grow_mm)

    def window(self, axes_mm: Axes) -> Window | None:
        """Indices (z, y, x) of the samples the layer may reach, None where there are none."""
        if not self.solids:
            return _window(axes_mm, np.full(3, -np.inf), np.full(3, np.inf))
        boxes = self.boxes_mm[: len(self.solids)]
        return _window(axes_mm, boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0))

    def distance(self, samples: Samples) -> Float32:
        """Signed distance in mm to the layer's surface."""
        if not self.solids:
            return samples.field(self.within) + np.float32(self.inset_mm - self.grow_mm)
        distance = self.surface(samples)
        distance -= np.float32(self.grow_mm)
        limit = self.limit(samples)
        return distance if limit is None else np.maximum(distance, limit, out=distance)

    def surface(self, samples: Samples) -> Float32:
        """Signed distance to the deformed solids alone, before growth."""
        distance = _united(self.solids, self.boxes_mm[: len(self.solids)], samples)
        for bump in self.wobble:
            distance += bump.sample(samples.axes_mm)
        return distance

    def limit(self, samples: Samples) -> Float32 | None:
        """What bounds the layer however far it grows: positive where it may not be, None without bounds."""
        bounds = []
        if self.carved:
            bounds.append(-_united(self.carved, self.boxes_mm[len(self.solids) :], samples))
        if self.within:
            bounds.append(samples.field(self.within) + np.float32(self.inset_mm))
        return np.maximum.reduce(bounds) if bounds else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canvas:
    """The picture so far: ``hu`` float32 and ``labels`` uint8, both [nz, ny, nx], at ``samples``."""

    samples: Samples
    hu: Float32
    labels: NDArray[np.uint8]

    def paint(self, layer: Layer) -> None:
        """Paint ``layer`` over what is there."""
        window = layer.window(self.samples.axes_mm)
        if window is None:
            return
        samples = self.samples.window(window)
        distance = layer.distance(samples)
        for coat in layer.coats:
            self._cover(window, samples, distance, coat)

    def _cover(self, window: Window, samples: Samples, distance: Float32, coat: Coat) -> None:
        if distance.size == 0 or distance.min() >= coat.reach_mm + _EDGE_MM / 2:
            return
        self.labels[window][distance < coat.reach_mm] = coat.label
        hu = self.hu[window]
        cover = distance * np.float32(-1 / _EDGE_MM)
        cover += np.float32(0.5 + coat.reach_mm / _EDGE_MM)
        np.clip(cover, 0, 1, out=cover)
        cover *= (coat.paint(samples) if callable(coat.paint) else np.float32(coat.paint)) - hu
        hu += cover


def solid_boxes(solids: Sequence[Solid], pose: Pose, *, margin_mm: float) -> Float64:
    """Boxes [n, 2, 3] in the scanner that hold each solid and ``margin_mm`` around it."""
    hulls = [solid.hull() for solid in solids]
    ends = np.cumsum([len(points) for points, _ in hulls])
    places = pose.scanner(np.concatenate([points for points, _ in hulls]))
    boxes = np.empty((len(solids), 2, 3))
    for box, piece, (_, radius) in zip(boxes, np.split(places, ends[:-1]), hulls, strict=True):
        spare = (radius * 1.25 + margin_mm) * pose.scale + _SPARE_MM
        box[0] = piece.min(axis=0) - spare
        box[1] = piece.max(axis=0) + spare
    return boxes


def _united(solids: Sequence[Solid], boxes_mm: Float64, samples: Samples) -> Float32:
    distance = np.full(samples.x.shape, FAR_MM, dtype=np.float32)
    for solid, box in zip(solids, boxes_mm, strict=True):
        window = _window(samples.axes_mm, box[0], box[1])
        if window is not None:
            near = solid.distance(samples.x[window], samples.y[window], samples.z[window])
            np.minimum(distance[window], near, out=distance[window])
    return distance


def _window(axes_mm: Axes, low_mm: Float64, high_mm: Float64) -> Window | None:
    cuts = []
    for positions, low, high in zip(axes_mm, low_mm, high_mm, strict=True):
        start, stop = np.searchsorted(positions, (low, high))
        if start >= stop:
            return None
        cuts.append(slice(int(start), int(stop)))
    return cuts[2], cuts[1], cuts[0]
