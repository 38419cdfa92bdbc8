"""Pictures of a case: CT slices with contours, with errors, and the coefficients of a gate.

Only matplotlib's object-oriented interface is used, so nothing global changes and
any number of pictures may be drawn; the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.report.legend import ONLY_PREDICTED, ONLY_TRUTH, PALETTE, colour_of, display_name
from ct_attn.report.png import indexed_png, palette_png
from ct_attn.report.scene import (
    AXIAL,
    CORONAL,
    FONT_PT,
    SAGITTAL,
    Plane,
    Scene,
    best_slice,
    cut,
    draw_contours,
    draw_letters,
    draw_scale_bar,
    fill,
    make_scene,
    show_slice,
)
from ct_attn.volume import Mask, Spacing3, Volume

PANEL_PX = 620  # of two panels side by side, or one above the other
LEGEND_PX = 186  # at least so much is kept for the legend, both ways
GAP_PX = 4
STYLES = ("solid", "dashed")  # of truth and prediction
DPI = 100


def case_picture(volume: Volume, truth: Mask, predicted: Mask | None = None, *, scheme: LabelScheme) -> bytes:
    """A PNG with an axial, a coronal and a sagittal slice and the contours of the masks.

    The masks are in the codes of ``scheme``; without ``predicted`` the truth is shown
    alone. Each slice lies where it shows most of all structures; all are cropped to the
    organs with a margin, in one scale in mm. However the axes are stored, the patient's
    right is on the left; an oblique grid is shown along its own axes. Raises
    ``ValueError`` when the grids differ.
    """
    masks = [truth] if predicted is None else [truth, predicted]
    scene = make_scene(volume, masks, scheme)
    styles = STYLES[: len(masks)]
    figure, panels = _lay_out(scene.size_mm)
    for plane, axes in panels.items():
        index = best_slice(scene, plane)
        show_slice(axes, scene, plane, index)
        for labels, style in zip(scene.masks, styles, strict=True):
            draw_contours(axes, scene, plane, cut(labels, plane, index), style)
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
    scene = make_scene(volume, (truth, predicted), scheme)
    figure, panels = _lay_out(scene.size_mm)
    for plane, axes in panels.items():
        index = best_slice(scene, plane)
        show_slice(axes, scene, plane, index)
        wanted, found = cut(scene.truth, plane, index), cut(scene.predicted, plane, index)
        fill(axes, scene, plane, (found > 0) & (wanted == 0), ONLY_PREDICTED)
        fill(axes, scene, plane, (wanted > 0) & (wanted != found), ONLY_TRUTH)
        draw_contours(axes, scene, plane, wanted, "solid", colour="white", width=0.6)
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
    scene = make_scene(alpha, (truth, predicted), scheme)
    figure, panels = _lay_out(scene.size_mm)
    for plane, axes in panels.items():
        index = best_slice(scene, plane)
        show_slice(axes, scene, plane, index, colours="viridis", low=0, high=1)
        draw_contours(axes, scene, plane, cut(scene.truth, plane, index), "solid", colour="white", width=0.8)
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
    figure: Figure, panels: dict[Plane, Axes], scene: Scene, handles: Sequence[Artist]
) -> NDArray[np.uint8]:
    """The letters, the scale and the legend on top; then the pixels [rows, columns, 3]."""
    for plane, axes in panels.items():
        draw_letters(axes, plane)
    draw_scale_bar(panels[AXIAL], scene)
    _draw_legend(figure, panels[AXIAL], handles)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _lay_out(size_mm: Spacing3) -> tuple[Figure, dict[Plane, Axes]]:
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
