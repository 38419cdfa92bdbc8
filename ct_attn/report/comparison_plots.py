"""Plots of a comparison as SVG to stand inside a page; see :mod:`ct_attn.report.plots`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from ct_attn.metrics.comparison import PairedComparison, Ranking, VolumeAgreement
from ct_attn.report.legend import PALETTE, colour_of, display_name
from ct_attn.report.plots import PLOT_PX, svg_text

_ROW_PX = 44
_LINE_PX = 15
_LINE_CHARACTERS = 62  # what fits into a line of words


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Numbers from ``low`` to ``high`` on the pixels from ``start`` to ``end``; ticks are round numbers."""

    low: float
    high: float
    start: float
    end: float

    @property
    def ticks(self) -> list[float]:
        wide = self.high - self.low or abs(self.high) or 1.0
        low, high = (self.low, self.high) if self.high > self.low else (self.low - wide, self.high + wide)
        return [float(tick) for tick in MaxNLocator(5).tick_values(low, high)]

    def __call__(self, value: float) -> float:
        first, last = self.ticks[0], self.ticks[-1]
        return self.start + (self.end - self.start) * (value - first) / (last - first)


def difference_plot(pairs: Sequence[PairedComparison], *, title: str) -> str:
    """A row per comparison of one measure: the mean difference and its 95 % interval, a line at 0.

    Every row says how many of its cases have a number in both runs.
    """
    shown = [pair for pair in pairs if pair.difference is not None]
    ends = [end for pair in shown for end in (pair.low, pair.difference, pair.high) if end is not None]
    x = _Scale(low=min([0.0, *ends]), high=max([0.0, *ends]), start=14, end=PLOT_PX - 18)
    names = [(display_name(pair.organ), f"{pair.second} − {pair.first}") for pair in pairs]
    counts = [f"{pair.n} of {pair.n + pair.n_worst} cases" for pair in pairs]
    on_one_line = all(
        sum(map(len, (*words, count))) + 3 <= _LINE_CHARACTERS
        for words, count in zip(names, counts, strict=True)
    )
    row_px = _ROW_PX if on_one_line else _ROW_PX + _LINE_PX
    bottom = len(pairs) * row_px + 6
    parts = list(_grid(x, bottom, title))
    parts.append(f'<path d="M{x(0):.1f} 4V{bottom}" stroke="currentColor" stroke-width="1.6"/>')
    colours = colour_of(list(dict.fromkeys(pair.organ for pair in pairs)))
    for row, (pair, (organ, runs), count) in enumerate(zip(pairs, names, counts, strict=True)):
        middle = (row + 1) * row_px - 14
        if on_one_line:
            parts += _label(organ, f"{runs}, {count}", middle - 12)
        else:
            parts += _label(organ, count, middle - 12 - _LINE_PX)
            parts += _label("", runs, middle - 12)
        if pair.difference is None:
            continue
        colour = colours[pair.organ]
        if pair.low is not None and pair.high is not None:
            ends_at = f"M{x(pair.low):.1f} {middle:.1f}H{x(pair.high):.1f}"
            parts.append(f'<path d="{ends_at}" stroke="{colour}" stroke-width="3"/>')
        hint = escape(f"{runs}, {organ}: {pair.difference:+.3g} in {count}")
        parts.append(
            f'<circle cx="{x(pair.difference):.1f}" cy="{middle:.1f}" r="5" fill="{colour}" '
            f'stroke="currentColor"><title>{hint}</title></circle>'
        )
    return _svg(
        parts, bottom + 46, f"{title}: mean difference and 95 % interval for each organ and pair of runs"
    )


def rank_plot(ranking: Ranking) -> str:
    """How often each run takes each rank when cases are drawn anew: a bar per run, split by rank."""
    runs = sorted(ranking.mean_ranks, key=ranking.mean_ranks.__getitem__)
    x = _Scale(low=0, high=1, start=14, end=PLOT_PX - 18)
    bottom = len(runs) * _ROW_PX + 6
    parts = list(_grid(x, bottom, "share of redrawn cohorts"))
    colours = rank_colours(len(runs))
    for row, run in enumerate(runs):
        middle = row * _ROW_PX + 30
        parts += _label(run, f"mean rank {ranking.mean_ranks[run]:.2f}", middle - 14)
        start = 0.0
        for rank, share in enumerate(ranking.frequencies[run], start=1):
            if not share:
                continue
            fill, ink = colours[rank - 1]
            parts.append(
                f'<rect x="{x(start):.1f}" y="{middle - 11:.1f}" width="{x(start + share) - x(start):.1f}" '
                f'height="22" fill="{fill}" stroke="currentColor" stroke-opacity=".5">'
                f"<title>{escape(run)}: rank {rank} in {share:.0%}</title></rect>"
            )
            if share >= 0.12:  # narrower ones have no room for words
                at = (x(start) + x(start + share)) / 2
                parts.append(
                    f'<text x="{at:.1f}" y="{middle + 4:.1f}" font-size="12" font-weight="600" '
                    f'text-anchor="middle" fill="{ink}">{rank}: {share:.0%}</text>'
                )
            start += share
    return _svg(parts, bottom + 46, f"Ranks of {', '.join(runs)} under bootstrap")


def rank_colours(n_ranks: int) -> list[tuple[str, str]]:
    """A colour per rank and one for words on it: from light (rank 1) to dark, told apart by brightness alone.

    Matplotlib's ``cividis`` (Nunez et al. 2018, PLoS ONE 13:e0199239) looks alike to eyes that
    see red and green as one.
    """
    places = [1 - rank / max(1, n_ranks - 1) for rank in range(n_ranks)]
    return [(to_hex(colormaps["cividis"](place)), "#000" if place > 0.45 else "#fff") for place in places]


def bland_altman_plot(agreement: VolumeAgreement, *, colour: str = PALETTE[1]) -> str:
    """Predicted less true volume over their mean, a dot per case; bias and limits of agreement as lines."""
    left, right = 58, PLOT_PX - 60
    means = [mean for _, mean, _ in agreement.points]
    lines = [value for value in (agreement.bias_ml, agreement.low_ml, agreement.high_ml) if value is not None]
    heights = [*(difference for _, _, difference in agreement.points), *lines, 0.0]
    x = _Scale(low=min(means, default=0.0), high=max(means, default=1.0), start=left, end=right)
    y = _Scale(low=min(heights), high=max(heights), start=190, end=12)
    parts = []
    for tick in y.ticks:
        parts.append(f'<path d="M{left} {y(tick):.1f}H{right}" stroke="currentColor" stroke-opacity=".14"/>')
        parts.append(svg_text(f"{tick:.3g}", left - 8, y(tick) + 4, size=12, anchor="end"))
    parts += [svg_text(f"{tick:.3g}", f"{x(tick):.1f}", 208, size=12) for tick in x.ticks]
    parts.append(
        svg_text("mean of true and predicted volume (ml)", f"{(left + right) / 2:.1f}", 228, size=13)
    )
    for value, dash in (
        (agreement.bias_ml, ""),
        (agreement.low_ml, "5 4"),
        (agreement.high_ml, "5 4"),
    ):
        if value is not None:
            parts.append(
                f'<path d="M{left} {y(value):.1f}H{right}" stroke="currentColor" stroke-width="1.6" '
                f'stroke-dasharray="{dash}"/>'
            )
            parts.append(svg_text(f"{value:+.1f}", right + 5, y(value) + 4, size=12, anchor="start"))
    for case_id, mean, difference in agreement.points:
        hint = escape(f"{case_id}: {difference:+.1f} ml at {mean:.1f} ml")
        parts.append(
            f'<circle cx="{x(mean):.1f}" cy="{y(difference):.1f}" r="4.2" fill="{colour}" '
            f'fill-opacity=".75" stroke="currentColor"><title>{hint}</title></circle>'
        )
    alt = f"Bland-Altman plot of volumes, {agreement.run}, {display_name(agreement.organ)}"
    return _svg(parts, 238, alt)


def _grid(x: _Scale, bottom: float, title: str) -> Iterator[str]:
    for tick in x.ticks:
        yield f'<path d="M{x(tick):.1f} 4V{bottom}" stroke="currentColor" stroke-opacity=".16"/>'
        yield svg_text(f"{tick:.3g}", f"{x(tick):.1f}", bottom + 16, size=12)
    yield svg_text(title, f"{(x.start + x.end) / 2:.1f}", bottom + 38, size=13)


def _label(name: str, detail: str, y: float) -> Iterator[str]:
    """A line of words above what it names, so that long names of runs have room; no axis runs through it."""
    yield (
        f'<text x="2" y="{y:.1f}" font-size="12" fill="currentColor" style="paint-order: stroke; '
        'stroke: var(--card); stroke-width: 4px"><tspan font-weight="600">'
        f'{escape(name)}</tspan> <tspan fill-opacity=".8">{escape(detail)}</tspan></text>'
    )


def _svg(parts: Sequence[str], height: float, alt: str) -> str:
    size = f"0 0 {PLOT_PX} {height:.0f}"
    return f'<svg role="img" aria-label="{escape(alt)}" viewBox="{size}">{"".join(parts)}</svg>'
