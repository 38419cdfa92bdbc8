"""Plots of scores as SVG to stand inside a page, written by hand.

So their text and lines take the colours of the page, light or dark, and the same
scores give the same text whatever fonts and libraries are installed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from matplotlib.ticker import MaxNLocator

from ct_attn.metrics import CaseScore, Distribution, State
from ct_attn.report.legend import colour_of, display_name

PLOT_PX = 410
ROW_PX = 64
LABEL_PX = 100  # for the names of the organs

Measure = Literal["dsc", "surface_dsc_2mm", "s2s_mm", "hd95_mm"]
MEASURE_TITLES: Mapping[Measure, str] = {
    "dsc": "DSC",
    "surface_dsc_2mm": "Surface DSC at 2 mm",
    "s2s_mm": "Surface distance S2S (mm)",
    "hd95_mm": "HD95 (mm)",
}
#: What ends at 1, whatever was scored.
_SHARES = ("dsc", "surface_dsc_2mm")


def score_plot(scores: Sequence[CaseScore], *, measure: Measure = "dsc") -> str:
    """An inline SVG: one row per organ, one dot per case over a box plot.

    The box holds the middle half of the cases and a line at the median; whiskers reach the
    furthest case within one and a half boxes (Tukey 1977). Hollow dots are missed or
    spurious organs, counted as DSC 0. Each row says how many of its cases have a dot; a
    dot's case shows on hovering.
    """
    rows: dict[str, list[CaseScore]] = {}
    for score in scores:
        rows.setdefault(score.organ, []).append(score)
    largest = max((getattr(score, measure) or 0.0 for score in scores), default=0.0)
    axis = _Axis(measure=measure, end=1.0 if measure in _SHARES else (largest or 1.0), rows=len(rows))
    parts = list(axis.draw())
    for row, (organ, of_organ) in enumerate(rows.items()):
        middle = (row + 0.55) * ROW_PX
        values = sorted(value for score in of_organ if (value := getattr(score, measure)) is not None)
        colour = colour_of(list(rows))[organ]
        parts += _draw_label(organ, f"{len(values)} of {len(of_organ)} cases", middle)
        parts += _draw_box(values, axis, middle, colour=colour)
        parts += _draw_dots(of_organ, axis, middle, colour=colour)
        parts += _draw_median(values, axis, middle)
    alt = f"{MEASURE_TITLES[measure]} of {', '.join(map(display_name, rows))}: box plots and a dot per case"
    size = f"0 0 {PLOT_PX} {axis.bottom + 46}"
    return f'<svg role="img" aria-label="{escape(alt)}" viewBox="{size}">{"".join(parts)}</svg>'


def curve_plot(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str, highest: float) -> str:
    """An inline SVG: named curves of (epoch, value) points over the epochs, values from 0 to ``highest``."""
    epochs = [epoch for points in curves.values() for epoch, _ in points]
    across = [float(tick) for tick in MaxNLocator(5, integer=True).tick_values(0, max(epochs, default=1))]
    up = [float(tick) for tick in MaxNLocator(5).tick_values(0, highest or 1.0)]
    left, right, bottom, top = 52, PLOT_PX - 14, 190, 10

    def x(epoch: float) -> float:
        return left + (right - left) * epoch / across[-1]

    def y(value: float) -> float:
        return bottom - (bottom - top) * min(value, up[-1]) / up[-1]

    parts = []
    for tick in up:
        parts.append(f'<path d="M{left} {y(tick):.1f}H{right}" stroke="currentColor" stroke-opacity=".16"/>')
        parts.append(svg_text(f"{tick:.3g}", left - 7, y(tick) + 4, size=12, anchor="end"))
    parts += [svg_text(f"{tick:.0f}", f"{x(tick):.1f}", bottom + 17, size=12) for tick in across]
    parts.append(svg_text("epoch", f"{(left + right) / 2:.1f}", bottom + 36, size=13))
    colours = colour_of(list(curves))
    for row, (name, points) in enumerate(curves.items()):
        path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in points)
        colour = colours[name] if len(curves) > 1 else "currentColor"
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(curves) > 1:
            height = bottom + 60 + 18 * row
            parts.append(f'<path d="M{left} {height - 4}h22" stroke="{colour}" stroke-width="3"/>')
            last = f", last {points[-1][1]:.3f}" if points else ""
            parts.append(svg_text(f"{display_name(name)}{last}", left + 30, height, size=13, anchor="start"))
    size = f"0 0 {PLOT_PX} {bottom + 46 + (18 * len(curves) if len(curves) > 1 else 0)}"
    return f'<svg role="img" aria-label="{escape(title)}" viewBox="{size}">{"".join(parts)}</svg>'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """The numbers along the bottom of a plot, from 0 to at least ``end``."""

    measure: Measure
    end: float
    rows: int

    @property
    def bottom(self) -> int:
        return self.rows * ROW_PX + 6

    @property
    def ticks(self) -> list[float]:
        return [float(tick) for tick in MaxNLocator(5).tick_values(0, self.end)]

    def x(self, value: float) -> float:
        """Where ``value`` lies, in px."""
        return LABEL_PX + 14 + (PLOT_PX - LABEL_PX - 32) * value / self.ticks[-1]

    def draw(self) -> Iterator[str]:
        """Grid lines, their numbers, and what is measured."""
        for tick in self.ticks:
            x = f"{self.x(tick):.1f}"
            yield f'<path d="M{x} 4V{self.bottom}" stroke="currentColor" stroke-opacity=".16"/>'
            yield svg_text(f"{tick:.3g}", x, self.bottom + 16, size=12)
        yield svg_text(
            MEASURE_TITLES[self.measure], f"{self.x(self.ticks[-1] / 2):.1f}", self.bottom + 38, size=13
        )


def _draw_label(organ: str, count: str, middle: float) -> Iterator[str]:
    yield svg_text(display_name(organ), LABEL_PX, middle - 2, size=13.5, anchor="end", weight=600)
    yield svg_text(count, LABEL_PX, middle + 15, size=12, anchor="end", opacity=0.75)


def _draw_dots(scores: Sequence[CaseScore], axis: _Axis, middle: float, *, colour: str) -> Iterator[str]:
    """One dot per case that has a value, spread over the row by steps that never clump."""
    for place, score in enumerate(scores):
        value = getattr(score, axis.measure)
        if value is None:
            continue
        y = middle + 0.46 * ROW_PX * ((place * 0.618034) % 1 - 0.5)
        fill = colour if score.state is State.SCORED else "none"
        title = escape(f"{score.case_id}: {value:.3g} ({score.state})")
        yield (
            f'<circle cx="{axis.x(value):.1f}" cy="{y:.1f}" r="4.2" fill="{fill}" fill-opacity=".75" '
            f'stroke="{colour}" stroke-width="1.4"><title>{title}</title></circle>'
        )


def _draw_box(values: Sequence[float], axis: _Axis, middle: float, *, colour: str) -> Iterator[str]:
    """The middle half of sorted ``values``, and whiskers; a box of fewer than four would claim too much."""
    if len(values) < 4:
        return
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
    low = min(value for value in values if value >= q1 - 1.5 * (q3 - q1))
    high = max(value for value in values if value <= q3 + 1.5 * (q3 - q1))
    for start, end in ((low, q1), (q3, high)):
        yield (
            f'<path d="M{axis.x(start):.1f} {middle:.1f}H{axis.x(end):.1f}" stroke="currentColor" '
            f'stroke-opacity=".55" stroke-width="1.2"/>'
        )
    yield (
        f'<rect x="{axis.x(q1):.1f}" y="{middle - 17:.1f}" width="{axis.x(q3) - axis.x(q1):.1f}" height="34" '
        f'rx="3" fill="{colour}" fill-opacity=".16" stroke="currentColor" stroke-opacity=".55"/>'
    )


def _draw_median(values: Sequence[float], axis: _Axis, middle: float) -> Iterator[str]:
    if not values:
        return
    median = statistics.median(values)
    x = f"{axis.x(median):.1f}"
    yield f'<path d="M{x} {middle - 19:.1f}v38" stroke="currentColor" stroke-width="2.4"/>'
    yield svg_text(f"{median:.3g}", x, middle - 23, size=12, weight=600)


def range_bar(numbers: Distribution, colour: str) -> str:
    """An inline SVG of a share from 0 to 1: the quartiles as a band, the mean as a line."""
    if numbers.mean is None or numbers.q1 is None or numbers.q3 is None:
        return ""
    alt = f"Mean {numbers.mean:.3f}, quartiles {numbers.q1:.3f} and {numbers.q3:.3f}, from 0 to 1"
    band = max(200 * (numbers.q3 - numbers.q1), 2)
    return (
        f'<svg role="img" aria-label="{alt}" viewBox="0 0 200 12" preserveAspectRatio="none">'
        '<rect y="4" width="200" height="4" rx="2" fill="currentColor" fill-opacity=".12"/>'
        f'<rect x="{200 * numbers.q1:.1f}" y="4" width="{band:.1f}" height="4" fill="{colour}"/>'
        f'<path d="M{200 * numbers.mean:.1f} 0V12" stroke="currentColor" stroke-width="2"/></svg>'
    )


def svg_text(
    words: str,
    x: float | str,
    y: float,
    *,
    size: float,
    anchor: str = "middle",
    weight: int = 400,
    opacity: float = 1,
) -> str:
    """``words`` at (x, y) px, in the page's own colour."""
    return (
        f'<text x="{x}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="currentColor" fill-opacity="{opacity}">{escape(words)}</text>'
    )
