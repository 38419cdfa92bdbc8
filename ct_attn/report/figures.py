"""Pictures of a case: CT slices with contours, with errors, and the coefficients of a gate.

Only matplotlib's object-oriented interface is used, so nothing global changes and
any number of pictures may be drawn; the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.report.legend import ONLY_PREDICTED, ONLY_TRUTH, PALETTE, colour_of, display_name
from ct_attn.report.png import indexed_png, palette_png
from ct_attn.report.reduced import box_of_organs
from ct_attn.volume import Grid, Mask, Spacing3, Volume

WINDOW_HU, LEVEL_HU = 400, 40
MARGIN_MM = 20
PANEL_PX = 620  # of two panels side by side, or one above the other
LEGEND_PX = 186  # at least so much is kept for the legend, both ways
GAP_PX = 4
STYLES = ("solid", "dashed")  # of truth and prediction
DPI = 100
FONT_PT = 11  # pages show pictures at half their size


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """A cut across the axis ``through``; the letters of its edges."""

    through: int
    left: str
    right: str
    top: str
    bottom: str


AXIAL = _Plane(through=2, left="R", right="L", top="A", bottom="P")
CORONAL = _Plane(through=1, left="R", right="L", top="S", bottom="I")
SAGITTAL = _Plane(through=0, left="A", right="P", top="S", bottom="I")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scene:
    """A case as it is shown: arrays [X, Y, Z] that run to the left, posterior, inferior.

    So each cut, transposed, is a picture in radiological convention: first row on
    top, and the patient's right (or the front, in a sagittal one) on the left.
    """

    hu: NDArray[Any]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    spacing_mm: Spacing3
    scheme: LabelScheme

    @property
    def size_mm(self) -> Spacing3:
        x, y, z = (count * step for count, step in zip(self.hu.shape, self.spacing_mm, strict=True))
        return x, y, z


def case_picture(volume: Volume, truth: Mask, predicted: Mask | None = None, *, scheme: LabelScheme) -> bytes:
    """A PNG with an axial, a coronal and a sagittal slice and the contours of the masks.

    The masks are in the codes of ``scheme``; without ``predicted`` the truth is shown
    alone. Each slice lies where it shows most of all structures; all are cropped to the
    organs with a margin, in one scale in mm. However the axes are stored, the patient's
    right is on the left; an oblique grid is shown along its own axes. Raises
    ``ValueError`` when the grids differ.
    """
    masks = [truth] if predicted is None else [truth, predicted]
    scene = _make_scene(volume, truth, masks[-1], scheme)
    styles = STYLES[: len(masks)]
    figure, panels = _lay_out(scene.size_mm)
    for plane, axes in panels.items():
        index = _best_slice(scene, plane)
        _show_slice(axes, scene, plane, index)
        for labels, style in zip((scene.truth, scene.predicted), styles, strict=False):
            _draw_contours(axes, scene, plane, _cut(labels, plane, index), style)
    handles = _organ_handles(scheme.names)
    if len(styles) > 1:  # one contour needs no telling apart
        handles.append(Line2D([], [], color="white", linewidth=1, label="truth"))
        handles.append(Line2D([], [], color="white", linewidth=1, linestyle="dashed", label="prediction"))
    return palette_png(_finish(figure, panels, scene, handles), PALETTE)


def error_picture(volume: Volume, truth: Mask, predicted: Mask, *, scheme: LabelScheme) -> bytes:
    """The same slices, filled where only one mask has a structure; a thin line is the truth's edge.

    A voxel that both masks label differently is missed by one structure and too much for
    the other: it is shown as missed. Raises ``ValueError`` when the grids differ.
    """
    scene = _make_scene(volume, truth, predicted, scheme)
    figure, panels = _lay_out(scene.size_mm)
    for plane, axes in panels.items():
        index = _best_slice(scene, plane)
        _show_slice(axes, scene, plane, index)
        wanted, found = _cut(scene.truth, plane, index), _cut(scene.predicted, plane, index)
        _fill(axes, scene, plane, (found > 0) & (wanted == 0), ONLY_PREDICTED)
        _fill(axes, scene, plane, (wanted > 0) & (wanted != found), ONLY_TRUTH)
        _draw_contours(axes, scene, plane, wanted, "solid", colour="white", width=0.6)
    handles: list[Artist] = [
        Patch(color=ONLY_TRUTH, label="missed: truth only"),
        Patch(color=ONLY_PREDICTED, label="too much:\nprediction only"),
        Line2D([], [], color="white", linewidth=0.8, label="edge of the truth"),
    ]
    return palette_png(_finish(figure, panels, scene, handles), (ONLY_TRUTH, ONLY_PREDICTED))


def attention_picture(alpha: Volume, truth: Mask, predicted: Mask, *, scheme: LabelScheme) -> bytes:
    """The coefficients ``alpha`` of a gate in the same slices, dark 0 to bright 1, and the true contours.

    Raises ``ValueError`` when the grids differ.
    """
    scene = _make_scene(alpha, truth, predicted, scheme)
    figure, panels = _lay_out(scene.size_mm)
    for plane, axes in panels.items():
        index = _best_slice(scene, plane)
        _show_slice(axes, scene, plane, index, colours="viridis", low=0, high=1)
        _draw_contours(
            axes, scene, plane, _cut(scene.truth, plane, index), "solid", colour="white", width=0.8
        )
    shades = colormaps["viridis"]
    handles: list[Artist] = [
        Patch(color=shades(step), label=f"coefficient {step:g}") for step in (1.0, 0.75, 0.5, 0.25, 0.0)
    ]
    handles.append(Line2D([], [], color="white", linewidth=0.8, label="edge of the truth"))
    return indexed_png(_finish(figure, panels, scene, handles), _shades_and_greys())


@cache
def _shades_and_greys() -> NDArray[np.uint8]:
    """The colours of a picture of attention: [256, 3]."""
    shades = np.asarray(colormaps["viridis"](np.linspace(0, 1, 200)))[:, :3] * 255
    return np.concatenate([shades, np.repeat(np.linspace(0, 255, 56)[:, None], 3, axis=1)]).astype(np.uint8)


def _finish(
    figure: Figure, panels: dict[_Plane, Axes], scene: _Scene, handles: Sequence[Artist]
) -> NDArray[np.uint8]:
    """The letters, the scale and the legend on top; then the pixels [rows, columns, 3]."""
    for plane, axes in panels.items():
        _draw_letters(axes, plane)
    _draw_scale_bar(panels[AXIAL], scene)
    _draw_legend(figure, panels[AXIAL], handles)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _make_scene(volume: Volume, truth_mask: Mask, predicted_mask: Mask, scheme: LabelScheme) -> _Scene:
    if not all(mask.grid.is_same_as(volume.grid) for mask in (truth_mask, predicted_mask)):
        raise ValueError("scan, truth and prediction are not on one grid")
    axes, flips = _turn(volume.grid)
    i, j, k = axes
    spacing = volume.grid.spacing_mm
    spacing_mm = (spacing[i], spacing[j], spacing[k])
    truth, predicted = (mask.labels.transpose(axes)[flips] for mask in (truth_mask, predicted_mask))
    box = box_of_organs((truth, predicted), spacing_mm, MARGIN_MM)
    return _Scene(
        hu=volume.hu.transpose(axes)[flips][box],
        truth=truth[box],
        predicted=predicted[box],
        spacing_mm=spacing_mm,
        scheme=scheme,
    )


def _turn(grid: Grid) -> tuple[list[int], tuple[slice, ...]]:
    """The order of axes, and the slices after it, that make an array run to L, P, I."""
    letters = grid.orientation
    axes = [next(axis for axis in range(3) if letters[axis] in pair) for pair in ("RL", "AP", "SI")]
    return axes, tuple(slice(None, None, 1 if letters[axis] in "LPI" else -1) for axis in axes)


def _best_slice(scene: _Scene, plane: _Plane) -> int:
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


def _lay_out(size_mm: Spacing3) -> tuple[Figure, dict[_Plane, Axes]]:
    """Axial over coronal, sagittal beside coronal, and the legend in the free corner."""
    wide_mm, deep_mm, high_mm = size_mm
    px_per_mm = PANEL_PX / max(wide_mm + deep_mm, deep_mm + high_mm)
    wide, deep, high = (max(1, round(size * px_per_mm)) for size in size_mm)
    right, top = max(deep, LEGEND_PX), max(deep, LEGEND_PX)
    width, height = wide + GAP_PX + right, top + GAP_PX + high
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="black")

    def panel(left: int, bottom: int, columns: int, rows: int) -> Axes:
        return figure.add_axes((left / width, bottom / height, columns / width, rows / height))

    panels = {
        AXIAL: panel(0, height - deep, wide, deep),
        CORONAL: panel(0, 0, wide, high),
        SAGITTAL: panel(wide + GAP_PX, 0, deep, high),
    }
    return figure, panels


def _show_slice(
    axes: Axes,
    scene: _Scene,
    plane: _Plane,
    index: int,
    *,
    colours: str = "gray",
    low: float = LEVEL_HU - WINDOW_HU / 2,
    high: float = LEVEL_HU + WINDOW_HU / 2,
) -> None:
    wide_mm, high_mm = _extent_mm(scene, plane)
    picture = np.clip(_cut(scene.hu, plane, index).astype(np.float32), low, high)
    axes.imshow(
        picture,
        cmap=colours,
        vmin=low,
        vmax=high,
        extent=(0, wide_mm, high_mm, 0),
        aspect="auto",
        interpolation="bilinear",
    )
    axes.set(xlim=(0, wide_mm), ylim=(high_mm, 0))
    axes.set_axis_off()


def _fill(axes: Axes, scene: _Scene, plane: _Plane, where: NDArray[np.bool_], colour: str) -> None:
    """Colour the voxels ``where`` [rows, columns], and let a little of the scan shine through."""
    wide_mm, high_mm = _extent_mm(scene, plane)
    rgba = np.zeros((*where.shape, 4), dtype=np.float32)
    rgba[where] = (*to_rgb(colour), 0.8)
    axes.imshow(rgba, extent=(0, wide_mm, high_mm, 0), aspect="auto", interpolation="nearest")


def _extent_mm(scene: _Scene, plane: _Plane) -> tuple[float, float]:
    """Width and height of a cut."""
    wide_mm, high_mm = (size for axis, size in enumerate(scene.size_mm) if axis != plane.through)
    return wide_mm, high_mm


def _cut(array: NDArray[Any], plane: _Plane, index: int) -> NDArray[Any]:
    """The slice [rows, columns] of ``array`` [X, Y, Z]."""
    return np.asarray(array.take(index, axis=plane.through)).T


def _draw_contours(
    axes: Axes,
    scene: _Scene,
    plane: _Plane,
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


def _draw_letters(axes: Axes, plane: _Plane) -> None:
    """Which way the patient lies, at the middle of each edge."""
    for letter, x, y, across, up in (
        (plane.left, 0.01, 0.5, "left", "center"),
        (plane.right, 0.99, 0.5, "right", "center"),
        (plane.top, 0.5, 0.985, "center", "top"),
        (plane.bottom, 0.5, 0.015, "center", "bottom"),
    ):
        _write(axes, letter, (x, y), ha=across, va=up)


def _draw_scale_bar(axes: Axes, scene: _Scene) -> None:
    """Five centimetres, in the lower left corner, where there is room."""
    wide_mm, high_mm, _ = scene.size_mm
    if min(wide_mm, high_mm) < 100:
        return
    start, level = 0.03 * wide_mm, high_mm - 0.03 * wide_mm
    casing = [withStroke(linewidth=3, foreground="black")]
    axes.plot([start, start + 50], [level, level], color="white", linewidth=1.5, path_effects=casing)
    _write(axes, "5 cm", ((start + 25) / wide_mm, 1 - level / high_mm + 0.015), ha="center", va="bottom")


def _organ_handles(names: Sequence[str]) -> list[Artist]:
    colours = colour_of(names)
    return [Line2D([], [], color=colours[name], linewidth=3, label=display_name(name)) for name in names]


def _draw_legend(figure: Figure, beside: Axes, handles: Sequence[Artist]) -> None:
    figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(beside.get_position().x1, 1),
        frameon=False,
        labelcolor="white",
        fontsize=FONT_PT,
        handlelength=1.4,
        alignment="left",
    )


def _write(axes: Axes, text: str, at: tuple[float, float], *, ha: str, va: str) -> None:
    """Small white letters with a dark rim; ``at`` is a share of the panel, from the lower left."""
    casing = [withStroke(linewidth=2, foreground="black")]
    axes.text(
        *at,
        text,
        color="white",
        fontsize=FONT_PT,
        ha=ha,
        va=va,
        transform=axes.transAxes,
        path_effects=casing,
    )
