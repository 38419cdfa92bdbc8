"""The report of a calibration: what is dropped, and what a model's confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from ct_attn.atomic import write_text
from ct_attn.report.legend import colour_of, display_name
from ct_attn.report.page import page_template
from ct_attn.report.plots import PLOT_PX, svg_text

LEFT, RIGHT, TOP, BOTTOM = 52, PLOT_PX - 14, 10, 250


@dataclass(frozen=True, slots=True, kw_only=True)
class BinRow:
    """Cases of like confidence, and what they reached."""

    low: float
    high: float
    n_cases: int
    mean_dsc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganRow:
    """What was learnt of one organ; ``points`` are (confidence, DSC) of the cases."""

    organ: str
    filter: str
    n_cases: int
    dsc_without: float | None
    dsc_with: float | None
    rank_correlation: float | None
    points: Sequence[tuple[float, float]]
    bins: Sequence[BinRow]


def write_calibration_report(
    path: Path, *, title: str, facts: Mapping[str, str], organs: Sequence[OrganRow]
) -> None:
    """Write the report to ``path``, whole or not at all; the same input gives the same bytes."""
    html = page_template("calibration.html").render(
        title=title,
        facts=facts,
        organs=organs,
        plots=[
            (row, confidence_plot(row, names=[one.organ for one in organs])) for row in organs if row.points
        ],
    )
    write_text(path, html)


def confidence_plot(row: OrganRow, *, names: Sequence[str]) -> str:
    """An inline SVG: a dot per case, DSC over confidence, and a line through the bins' means."""
    lowest = min(confidence for confidence, _ in row.points)
    across = [float(tick) for tick in MaxNLocator(5).tick_values(min(lowest, 0.99), 1.0) if tick <= 1.0]
    start, end = across[0], 1.0

    def x(confidence: float) -> float:
        return LEFT + (RIGHT - LEFT) * (confidence - start) / (end - start)

    def y(dsc: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * dsc

    parts = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{RIGHT}" stroke="currentColor" stroke-opacity=".16"/>')
        parts.append(svg_text(f"{tick:.1f}", LEFT - 7, y(tick) + 4, size=12, anchor="end"))
    parts += [svg_text(f"{tick:.4g}", f"{x(tick):.1f}", BOTTOM + 17, size=12) for tick in across]
    parts.append(svg_text("confidence", f"{(LEFT + RIGHT) / 2:.1f}", BOTTOM + 36, size=13))
    parts.append(svg_text("DSC", LEFT - 30, TOP + 4, size=13))
    colour = colour_of(names)[row.organ]
    parts += [
        f'<circle cx="{x(confidence):.1f}" cy="{y(dsc):.1f}" r="4.2" fill="{colour}" fill-opacity=".75" '
        f'stroke="{colour}"><title>confidence {confidence:.4f}, DSC {dsc:.3f}</title></circle>'
        for confidence, dsc in row.points
    ]
    if row.bins:
        line = " ".join(f"{x((one.low + one.high) / 2):.1f},{y(one.mean_dsc):.1f}" for one in row.bins)
        parts.append(f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="2"/>')
    alt = escape(f"DSC of {display_name(row.organ)} over its confidence, a dot per case")
    return f'<svg role="img" aria-label="{alt}" viewBox="0 0 {PLOT_PX} {BOTTOM + 46}">{"".join(parts)}</svg>'
