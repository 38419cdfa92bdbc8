"""The figures of ``benchmarks/study.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from study_scores import Difference

#: Legible to colour-blind readers (Okabe and Ito 2008).
COLOURS = {"pancreas": "#d55e00", "spleen": "#0072b2", "kidney": "#009e73"}
STYLES, MARKERS = ("-", "--", ":"), ("o", "s", "^")
#: Mean, and the lower and upper end of its interval.
Spread = tuple[float, float, float]


def draw(
    path: Path,
    curves: Mapping[tuple[str, str], Sequence[tuple[str, Spread]]],
    *,
    places: Sequence[str],
    axis: str,
    joined: bool = True,
) -> None:
    """A PNG of DSC over the ``places`` of ``axis``, with 95 % intervals.

    ``curves``: (network, organ) -> place and value. An organ has a colour, a network a
    style and a panel's worth of room beside the others. ``joined``: places follow each other.
    """
    networks = list(dict.fromkeys(network for network, _ in curves))
    figure = Figure(figsize=(max(6.4, 1.1 * len(places)), 4.2), layout="constrained")
    plot = figure.subplots()
    for (network, organ), points in curves.items():
        number = networks.index(network)
        x = [places.index(place) + 0.12 * (number - (len(networks) - 1) / 2) for place, _ in points]
        means = [mean for _, (mean, _, _) in points]
        ends = [
            [mean - low for _, (mean, low, _) in points],
            [high - mean for _, (mean, _, high) in points],
        ]
        plot.errorbar(
            x, means, yerr=ends, color=COLOURS[organ], marker=MARKERS[number % len(MARKERS)], markersize=4,
            linestyle=STYLES[number % len(STYLES)] if joined else "none", linewidth=1.2, elinewidth=0.8,
            capsize=2, label=f"{organ}, {network}",
        )  # fmt: skip
    plot.set_xticks(range(len(places)), places)
    plot.set_xlabel(axis)
    plot.set_ylabel("DSC, mean over the test cases")
    plot.grid(alpha=0.3)
    plot.legend(fontsize=7, ncols=len(networks), loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_differences(path: Path, found: Sequence[Difference], *, runs: Sequence[str]) -> None:
    """A PNG with a panel for each organ and a line for each of ``runs``: its difference and interval."""
    figure = Figure(figsize=(11, 1.4 + 0.26 * len(runs)), layout="constrained")
    plots = figure.subplots(1, len(COLOURS), sharey=True)
    for plot, (organ, colour) in zip(plots, COLOURS.items(), strict=True):
        for one in found:
            if one.organ != organ or one.spread is None:
                continue
            mean, low, high = one.spread
            plot.errorbar(
                mean, runs.index(one.run), xerr=[[mean - low], [high - mean]], color=colour, marker="o",
                markersize=4, elinewidth=1.2, capsize=2, markerfacecolor=colour if one.p < 0.05 else "white",
            )  # fmt: skip
        plot.axvline(0, color="black", linewidth=0.8)
        plot.set_title(organ)
        plot.set_xlabel("DSC less the U-Net's")
        plot.grid(alpha=0.3)
    plots[0].set_yticks(range(len(runs)), runs)
    plots[0].invert_yaxis()
    figure.suptitle("Full dots: p < 0.05 after Holm's correction", fontsize=9)
    figure.savefig(path, dpi=130, metadata={"Software": None})
