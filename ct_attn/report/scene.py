"""A case as it lies in a picture: its three planes, cropped, in radiological convention, in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.report.legend import colour_of
from ct_attn.report.reduced import box_of_organs
from ct_attn.volume import Grid, Mask, Spacing3, Volume

WINDOW_HU, LEVEL_HU = 400, 40
MARGIN_MM = 20
FONT_PT = 11  # pages show pictures at half their size


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A cut across the axis ``through``; the letters of its edges."""

    through: int
    left: str
    right: str
    top: str
    bottom: str


AXIAL = Plane(through=2, left="R", right="L", top="A", bottom="P")
CORONAL = Plane(through=1, left="R", right="L", top="S", bottom="I")
SAGITTAL = Plane(through=0, left="A", right="P", top="S", bottom="I")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A case as it is shown: arrays [X, Y, Z] that run to the left, posterior, inferior.

    So each cut, transposed, is a picture in radiological convention: first row on
    top, and the patient's right (or the front, in a sagittal one) on the left.
    """

    hu: NDArray[Any]
    masks: tuple[NDArray[np.uint8], ...]
    spacing_mm: Spacing3
    scheme: LabelScheme

    @property
    def truth(self) -> NDArray[np.uint8]:
        return self.masks[0]

    @property
    def predicted(self) -> NDArray[np.uint8]:
        return self.masks[-1]

    @property
    def size_mm(self) -> Spacing3:
        x, y, z = (count * step for count, step in zip(self.hu.shape, self.spacing_mm, strict=True))
        return x, y, z


def make_scene(volume: Volume, masks: Sequence[Mask], scheme: LabelScheme) -> Scene:
    """The case cropped to the organs of ``masks``, the truth first, with a margin.

    Raises ``ValueError`` when the grids differ.
    """
    if not all(mask.grid.is_same_as(volume.grid) for mask in masks):
        raise ValueError("scan, truth and prediction are not on one grid")
    axes, flips = _turn(volume.grid)
    i, j, k = axes
    spacing = volume.grid.spacing_mm
    spacing_mm = (spacing[i], spacing[j], spacing[k])
    turned = [mask.labels.transpose(axes)[flips] for mask in masks]
    box = box_of_organs(turned, spacing_mm, MARGIN_MM)
    return Scene(
        hu=volume.hu.transpose(axes)[flips][box],
        masks=tuple(labels[box] for labels in turned),
        spacing_mm=spacing_mm,
        scheme=scheme,
    )


def _turn(grid: Grid) -> tuple[list[int], tuple[slice, ...]]:
    """The order of axes, and the slices after it, that make an array run to L, P, I."""
    letters = grid.orientation
    axes = [next(axis for axis in range(3) if letters[axis] in pair) for pair in ("RL", "AP", "SI")]
    return axes, tuple(slice(None, None, 1 if letters[axis] in "LPI" else -1) for axis in axes)


def best_slice(scene: Scene, plane: Plane) -> int:
    """Where the plane shows most: each structure counts by its share of its own largest cut.

    Judged by the truth, or by the prediction when the truth is empty. So a small
    pancreas weighs as much as two kidneys.
    """
    labels = scene.truth if scene.truth.any() else scene.predicted
    others = tuple({0, 1, 2} - {plane.through})
    shown = np.zeros(labels.shape[plane.through])
    for structure in scene.scheme.structures:
        areas = np.count_nonzero(labels == structure.code, axis=others)
        shown += areas / max(areas.max(), 1)
    return int(shown.argmax()) if shown.any() else len(shown) // 2


def show_slice(
    axes: Axes,
    scene: Scene,
    plane: Plane,
    index: int,
    *,
    colours: str = "gray",
    low: float = LEVEL_HU - WINDOW_HU / 2,
    high: float = LEVEL_HU + WINDOW_HU / 2,
) -> None:
    size_mm = extent_mm(scene, plane)
    show_values(axes, cut(scene.hu, plane, index), size_mm, colours=colours, low=low, high=high)


def show_values(
    axes: Axes,
    values: NDArray[Any],
    size_mm: tuple[float, float],
    *,
    colours: str = "gray",
    low: float = LEVEL_HU - WINDOW_HU / 2,
    high: float = LEVEL_HU + WINDOW_HU / 2,
) -> None:
    """``values`` [rows, columns] in ``axes``, whose units become mm: ``size_mm`` wide and high."""
    wide_mm, high_mm = size_mm
    axes.imshow(
        np.clip(values.astype(np.float32), low, high),
        cmap=colours,
        vmin=low,
        vmax=high,
        extent=(0, wide_mm, high_mm, 0),
        aspect="auto",
        interpolation="bilinear",
    )
    axes.set(xlim=(0, wide_mm), ylim=(high_mm, 0))
    axes.set_axis_off()


def fill(
    axes: Axes, scene: Scene, plane: Plane, where: NDArray[np.bool_], colour: str, *, share: float = 0.8
) -> None:
    """Colour the voxels ``where`` [rows, columns], and let the rest of 1 of the scan shine through."""
    wide_mm, high_mm = extent_mm(scene, plane)
    rgba = np.zeros((*where.shape, 4), dtype=np.float32)
    rgba[where] = (*to_rgb(colour), share)
    axes.imshow(rgba, extent=(0, wide_mm, high_mm, 0), aspect="auto", interpolation="nearest")


def extent_mm(scene: Scene, plane: Plane) -> tuple[float, float]:
    """Width and height of a cut."""
    wide_mm, high_mm = (size for axis, size in enumerate(scene.size_mm) if axis != plane.through)
    return wide_mm, high_mm


def cut(array: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """The slice [rows, columns] of ``array`` [X, Y, Z]."""
    return np.asarray(array.take(index, axis=plane.through)).T


def draw_contours(
    axes: Axes,
    scene: Scene,
    plane: Plane,
    labels: NDArray[np.uint8],
    style: str,
    *,
    colour: str | None = None,
    width: float = 1,
) -> None:
    """Outline each structure of ``labels`` [rows, columns]; a rim of background closes what is cut off."""
    across_mm, down_mm = (step for axis, step in enumerate(scene.spacing_mm) if axis != plane.through)
    x = (np.arange(-1, labels.shape[1] + 1) + 0.5) * across_mm
    y = (np.arange(-1, labels.shape[0] + 1) + 0.5) * down_mm
    colours = colour_of(scene.scheme.names)
    for structure in scene.scheme.structures:
        member = np.pad(labels == structure.code, 1).astype(np.float32)
        if member.any():
            axes.contour(
                x, y, member, levels=[0.5], colors=colour or colours[structure.name], linestyles=style,
                linewidths=width,
            )  # fmt: skip


def draw_letters(axes: Axes, plane: Plane, font_pt: float = FONT_PT) -> None:
    """Which way the patient lies, at the middle of each edge."""
    for letter, x, y, across, up in (
        (plane.left, 0.01, 0.5, "left", "center"),
        (plane.right, 0.99, 0.5, "right", "center"),
        (plane.top, 0.5, 0.985, "center", "top"),
        (plane.bottom, 0.5, 0.015, "center", "bottom"),
    ):
        write(axes, letter, (x, y), ha=across, va=up, font_pt=font_pt)


def draw_scale_bar(axes: Axes, scene: Scene, font_pt: float = FONT_PT) -> None:
    """Five centimetres, in the lower left corner, where there is room."""
    wide_mm, high_mm, _ = scene.size_mm
    if min(wide_mm, high_mm) < 100:
        return
    start, level = 0.03 * wide_mm, high_mm - 0.03 * wide_mm
    casing = [withStroke(linewidth=3, foreground="black")]
    axes.plot([start, start + 50], [level, level], color="white", linewidth=1.5, path_effects=casing)
    write(
        axes,
        "5 cm",
        ((start + 25) / wide_mm, 1 - level / high_mm + 0.015),
        ha="center",
        va="bottom",
        font_pt=font_pt,
    )


def write(
    axes: Axes, text: str, at: tuple[float, float], *, ha: str, va: str, font_pt: float = FONT_PT
) -> None:
    """Small white letters with a dark rim; ``at`` is a share of the panel, from the lower left."""
    casing = [withStroke(linewidth=2, foreground="black")]
    axes.text(
        *at,
        text,
        color="white",
        fontsize=font_pt,
        ha=ha,
        va=va,
        transform=axes.transAxes,
        path_effects=casing,
    )
