"""One picture per case: an axial slice of the scan, and in it the truth and the prediction, side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.report.legend import PALETTE, colour_of, display_name
from ct_attn.report.png import palette_png
from ct_attn.report.scene import FONT_PT, show_values
from ct_attn.volume import Grid, Mask, Volume

PANEL_PX = 480  # the longer side of a panel
GAP_PX = 6
HEADING_PX = 34
LEGEND_PX = 44
DPI = 100
OPACITY = 0.5  # of an organ's colour over the scan


def side_by_side_picture(
    volume: Volume,
    truth: Mask,
    predicted: Mask,
    *,
    scheme: LabelScheme,
    not_labelled: Collection[str] = (),
) -> bytes:
    """A PNG of three panels: the scan, the scan with the truth, the scan with the prediction.

    The masks are in the codes of ``scheme``; of its structures, ``not_labelled`` are those
    of which the truth says nothing, and the legend says so. The slice is the one of
    :func:`largest_slice`, whole, its true proportions kept, with the patient's right on the
    left however the axes are stored. Raises ``ValueError`` when the grids differ.
    """
    grid = volume.grid
    if not all(mask.grid.is_same_as(grid) for mask in (truth, predicted)):
        raise ValueError("scan, truth and prediction are not on one grid")
    index = largest_slice(truth, predicted)
    hu, wanted, found = (
        _axial_cut(array, grid, index) for array in (volume.hu, truth.labels, predicted.labels)
    )
    size_mm = _size_mm(grid)
    figure, panels = _lay_out(size_mm)
    nothing = np.zeros_like(wanted)
    for axes, heading, labels in zip(
        panels, ("image", "truth", "prediction"), (nothing, wanted, found), strict=True
    ):
        show_values(axes, hu, size_mm)
        _paint(axes, labels, size_mm, scheme)
        _write(axes, "R", (0.01, 0.5), ha="left", va="center")
        _write(axes, "L", (0.99, 0.5), ha="right", va="center")
        _write(axes, heading, (0.5, 1 + 0.25 * HEADING_PX / _height_px(size_mm)), ha="center", va="bottom")
    place = f"axial slice {index} (0 to {grid.shape[grid.axial_axis] - 1})"
    _draw_legend(figure, _handles(scheme, not_labelled), place)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return palette_png(np.asarray(canvas.buffer_rgba())[..., :3], PALETTE)


def largest_slice(truth: Mask, predicted: Mask) -> int:
    """The axial slice, as stored, in which the true structures together are largest, the first of equal ones.

    Where the truth is empty the prediction decides, and where both are, the middle.
    """
    axis = truth.grid.axial_axis
    across = tuple({0, 1, 2} - {axis})
    for mask in (truth, predicted):
        voxels = np.count_nonzero(mask.labels, axis=across)
        if voxels.any():
            return int(voxels.argmax())
    return truth.grid.shape[axis] // 2


def _axes_to_left_and_posterior(grid: Grid) -> tuple[int, int]:
    """The axes that run along left-right and anterior-posterior."""
    letters = grid.orientation
    left, back = (next(axis for axis in range(3) if letters[axis] in pair) for pair in ("RL", "AP"))
    return left, back


def _axial_cut(array: NDArray[Any], grid: Grid, index: int) -> NDArray[Any]:
    """The slice ``index`` of ``array`` [I, J, K] as rows to posterior and columns to the patient's left."""
    columns, rows = _axes_to_left_and_posterior(grid)
    cut = array.transpose(rows, columns, grid.axial_axis)[:, :, index]
    steps = [1 if grid.orientation[axis] in "LP" else -1 for axis in (rows, columns)]
    return np.asarray(cut[:: steps[0], :: steps[1]])


def _size_mm(grid: Grid) -> tuple[float, float]:
    """Width and height of an axial slice."""
    columns, rows = _axes_to_left_and_posterior(grid)
    return grid.shape[columns] * grid.spacing_mm[columns], grid.shape[rows] * grid.spacing_mm[rows]


def _width_px(size_mm: tuple[float, float]) -> int:
    return max(1, round(PANEL_PX * size_mm[0] / max(size_mm)))


def _height_px(size_mm: tuple[float, float]) -> int:
    return max(1, round(PANEL_PX * size_mm[1] / max(size_mm)))


def _lay_out(size_mm: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Three panels in a row, headings above and the legend below."""
    wide, high = _width_px(size_mm), _height_px(size_mm)
    width, height = 3 * wide + 2 * GAP_PX, HEADING_PX + high + LEGEND_PX
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="black")
    panels = [
        figure.add_axes((place * (wide + GAP_PX) / width, LEGEND_PX / height, wide / width, high / height))
        for place in range(3)
    ]
    return figure, panels


def _paint(axes: Axes, labels: NDArray[np.uint8], size_mm: tuple[float, float], scheme: LabelScheme) -> None:
    """Every structure of ``labels`` [rows, columns] filled with its colour, and outlined."""
    wide_mm, high_mm = size_mm
    rows, columns = labels.shape
    x = (np.arange(-1, columns + 1) + 0.5) * wide_mm / columns
    y = (np.arange(-1, rows + 1) + 0.5) * high_mm / rows
    rgba = np.zeros((rows, columns, 4), dtype=np.float32)
    colours = colour_of(scheme.names)
    for structure in scheme.structures:
        member = labels == structure.code
        rgba[member] = (*to_rgb(colours[structure.name]), OPACITY)
        if member.any():  # the rim of background closes what the slice cuts off
            outline = np.pad(member, 1).astype(np.float32)
            axes.contour(x, y, outline, levels=[0.5], colors=colours[structure.name], linewidths=1)
    axes.imshow(rgba, extent=(0, wide_mm, high_mm, 0), aspect="auto", interpolation="nearest")


def _handles(scheme: LabelScheme, not_labelled: Collection[str]) -> list[Artist]:
    colours = colour_of(scheme.names)
    return [
        Patch(
            color=colours[name],
            label=display_name(name) + (" (not labelled in the truth)" if name in not_labelled else ""),
        )
        for name in scheme.names
    ]


def _draw_legend(figure: Figure, handles: Sequence[Artist], place: str) -> None:
    """The organs on the left below the panels, ``place`` on the right."""
    width, height = figure.get_size_inches() * DPI
    figure.legend(
        handles=list(handles),
        loc="center left",
        bbox_to_anchor=(0, LEGEND_PX / 2 / height),
        ncols=len(handles),
        frameon=False,
        labelcolor="white",
        fontsize=FONT_PT,
        handlelength=1.2,
        columnspacing=1.4,
    )
    figure.text(
        1 - 10 / width,
        LEGEND_PX / 2 / height,
        place,
        color="white",
        fontsize=FONT_PT,
        ha="right",
        va="center",
    )


def _write(axes: Axes, text: str, at: tuple[float, float], *, ha: str, va: str) -> None:
    """White letters with a dark rim; ``at`` is a share of the panel, from the lower left."""
    axes.text(
        *at,
        text,
        color="white",
        fontsize=FONT_PT,
        ha=ha,
        va=va,
        transform=axes.transAxes,
        path_effects=[withStroke(linewidth=2, foreground="black")],
    )
