"""A picture of what attention gates do: features before, coefficients, features after, in two planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil, log10

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.report.legend import colour_of, display_name

DPI = 160
COLUMN_INCHES = 1.75  # the wider of an axial and a sagittal panel
GAP, APART, TITLE, BARS, NAMES = 0.06, 0.14, 0.3, 1.45, 0.3  # inches
FONT_PT = 8
FEATURES, COEFFICIENTS = "magma", "viridis"

#: Features are shown up to this percentile of those before the gate.
TOP_PERCENTILE = 99.5

#: Features behind a gate that are dimmer than this share of those before it are shown brighter.
DIM = 0.05

NOTE = (
    "features: mean over channels of the absolute activation,\n"
    "before the gate and times its coefficient, in one scale per row\n"
    "coefficients: what the gate multiplies the skip with;\n"
    "no explanation of the result"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShownPlane:
    """A plane as the working grid has it: its axes [U, V] run to R and A, R and S or A and S.

    ``image`` in 0 to 1, ``labels`` in the codes of a scheme, ``maps`` [gates, 3, U, V]:
    features before, coefficient, features after. ``letters``: what lies to the left, right,
    top and bottom of the picture.
    """

    title: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    maps: NDArray[np.float32]
    spacing_mm: tuple[float, float]
    letters: str

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the picture."""
        wide, high = (n * step for n, step in zip(self.image.shape, self.spacing_mm, strict=True))
        return wide, high


def gate_picture(planes: Sequence[ShownPlane], gates: Sequence[str], *, scheme: LabelScheme) -> bytes:
    """A PNG with the scan and the predicted organs above, and a row for each of ``gates``.

    All panels have one scale in mm. Within a row, features before and after share a scale
    in all ``planes``; where a gate lets through less than a twentieth (softmax gates do), the
    features after it are shown brighter by a factor that is written on them.
    """
    inches_per_mm = COLUMN_INCHES / max(plane.size_mm[0] for plane in planes)
    row = max(plane.size_mm[1] for plane in planes) * inches_per_mm
    widths = [plane.size_mm[0] * inches_per_mm for plane in planes]
    size = (
        NAMES + sum(3 * (wide + GAP) + APART for wide in widths) + BARS,
        (len(gates) + 1) * (row + GAP + TITLE),
    )
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    lefts = [NAMES + sum(3 * (wide + GAP) + APART for wide in widths[:n]) for n in range(len(planes))]
    for plane, left, wide in zip(planes, lefts, widths, strict=True):
        high = plane.size_mm[1] * inches_per_mm
        for number in range(len(gates) + 1):
            bottom = size[1] - (number + 1) * (row + GAP + TITLE) + GAP + (row - high) / 2
            boxes = [(left + n * (wide + GAP), bottom, wide, high) for n in range(3)]
            axes = [_panel(figure, box, size) for box in (boxes if number else boxes[:1])]
            if number == 0:
                _show_scan(axes[0], plane, scheme)
            else:
                _show_gate(axes, plane, planes, number - 1)
    for number, gate in enumerate(gates, start=1):
        middle = size[1] - (number + 1) * (row + GAP + TITLE) + GAP + row / 2
        figure.text(
            0.4 * NAMES / size[0], middle / size[1], gate.replace("_", " "), rotation=90, ha="center",
            va="center", fontsize=FONT_PT + 1,
        )  # fmt: skip
        bars = (size[0] - BARS + 0.12, middle - row / 2, 0.1, row)
        _draw_bars(figure, bars, size, planes, number - 1)
    _write_legend(figure, (lefts[0] + widths[0] + 2 * GAP, size[1] - TITLE), size, scheme)
    FigureCanvasAgg(figure)
    png = BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _panel(figure: Figure, box: tuple[float, float, float, float], size: tuple[float, float]) -> Axes:
    left, bottom, wide, high = box
    axes = figure.add_axes((left / size[0], bottom / size[1], wide / size[0], high / size[1]))
    axes.set_axis_off()
    return axes


def _show_scan(axes: Axes, plane: ShownPlane, scheme: LabelScheme) -> None:
    _show(axes, plane, plane.image, "gray", Normalize(0, 1))
    for name, colour in colour_of(scheme.names).items():
        _draw_contour(axes, plane, plane.labels == scheme.codes[name], colour, 1.0)
    axes.set_title(f"scan, {plane.title}", fontsize=FONT_PT, pad=3)
    left, right, top, bottom = list(plane.letters)
    casing = [withStroke(linewidth=1.5, foreground="black")]
    for letter, x, y, ha, va in (
        (left, 0.02, 0.5, "left", "center"), (right, 0.98, 0.5, "right", "center"),
        (top, 0.5, 0.98, "center", "top"), (bottom, 0.5, 0.02, "center", "bottom"),
    ):  # fmt: skip
        axes.text(
            x, y, letter, color="white", fontsize=FONT_PT, ha=ha, va=va, transform=axes.transAxes,
            path_effects=casing,
        )  # fmt: skip


def _show_gate(axes: Sequence[Axes], plane: ShownPlane, planes: Sequence[ShownPlane], gate: int) -> None:
    features, coefficients, brighter = _scales(planes, gate)
    before, alpha, after = plane.maps[gate]
    titles = (
        "features before",
        "coefficients",
        "features after" + (f" (x {brighter:,})" if brighter > 1 else ""),
    )
    shown = (
        (before, FEATURES, features),
        (alpha, COEFFICIENTS, coefficients),
        (after * brighter, FEATURES, features),
    )
    for one, title, (values, colours, scale) in zip(axes, titles, shown, strict=True):
        _show(one, plane, values, colours, scale)
        _draw_contour(one, plane, plane.labels > 0, "white", 0.5)
        one.set_title(title, fontsize=FONT_PT, pad=3)


def _scales(planes: Sequence[ShownPlane], gate: int) -> tuple[Normalize, Normalize, int]:
    """Of the features, of the coefficients, and how much brighter features after the gate are shown."""
    before, alpha, after = (
        np.concatenate([plane.maps[gate, part].ravel() for plane in planes]) for part in range(3)
    )
    top, behind = (max(float(np.percentile(one, TOP_PERCENTILE)), 1e-12) for one in (before, after))
    brighter = 10 ** ceil(log10(top / behind) - 0.5) if behind < DIM * top and after.any() else 1
    low, high = float(alpha.min()), float(alpha.max())
    in_0_to_1 = low >= 0 and DIM < high <= 1 + 1e-6
    coefficients = Normalize(0, 1) if in_0_to_1 else Normalize(min(0.0, low), max(high, low + 1e-12))
    return Normalize(0, top), coefficients, brighter


def _show(axes: Axes, plane: ShownPlane, values: NDArray[np.float32], colours: str, scale: Normalize) -> None:
    wide_mm, high_mm = plane.size_mm
    axes.imshow(
        _upright(plane, values), cmap=colours, norm=scale, extent=(0, wide_mm, high_mm, 0), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    axes.set(xlim=(0, wide_mm), ylim=(high_mm, 0))


def _draw_contour(
    axes: Axes, plane: ShownPlane, member: NDArray[np.bool_], colour: str, width: float
) -> None:
    if not member.any():
        return
    padded = np.pad(_upright(plane, member), 1).astype(np.float32)
    across_mm, down_mm = plane.spacing_mm
    x, y = (
        (np.arange(n) - 0.5) * step for n, step in zip(padded.shape[::-1], (across_mm, down_mm), strict=True)
    )
    casing = [withStroke(linewidth=width + 0.5, foreground="black")]
    axes.contour(x, y, padded, levels=[0.5], colors=colour, linewidths=width).set(path_effects=casing)


def _upright(plane: ShownPlane, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """[U, V], running to R, A or S, as rows and columns: the patient's right, or the front, on the left."""
    assert plane.image.shape == values.shape
    return values[::-1, ::-1].T


def _draw_bars(
    figure: Figure,
    box: tuple[float, float, float, float],
    size: tuple[float, float],
    planes: Sequence[ShownPlane],
    gate: int,
) -> None:
    features, coefficients, _ = _scales(planes, gate)
    left, bottom, wide, high = box
    for n, (scale, colours, label) in enumerate(
        ((features, FEATURES, "features"), (coefficients, COEFFICIENTS, "coefficient"))
    ):
        axes = figure.add_axes(
            ((left + 0.65 * n) / size[0], bottom / size[1], wide / size[0], high / size[1])
        )
        figure.colorbar(ScalarMappable(scale, colours), cax=axes).set_label(label, fontsize=FONT_PT - 1)
        axes.tick_params(labelsize=FONT_PT - 2)


def _write_legend(
    figure: Figure, at: tuple[float, float], size: tuple[float, float], scheme: LabelScheme
) -> None:
    x, y = at[0] / size[0], at[1] / size[1]
    text = figure.text(x, y, NOTE, fontsize=FONT_PT - 1, ha="left", va="top", linespacing=1.5)
    colours = colour_of(scheme.names)
    handles = [
        Line2D([], [], color=colours[name], linewidth=2, label=display_name(name)) for name in scheme.names
    ]
    figure.legend(
        handles=handles, title="predicted", loc="upper left", bbox_to_anchor=(x, y - 0.8 / size[1]),
        frameon=False, fontsize=FONT_PT - 1, title_fontsize=FONT_PT - 1, alignment="left", ncols=2,
        borderpad=0,
    )  # fmt: skip
    text.set_in_layout(False)
