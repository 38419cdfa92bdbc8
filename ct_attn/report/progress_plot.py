"""The curves of a training as one picture, to be looked at while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ct_attn.report.legend import colour_of, display_name
from ct_attn.report.run_page import LEFT_OUT, n_left_out

SIZE_INCHES = (10, 6)
DPI = 100
INK = "#1b2430"


def progress_picture(rows: Sequence[Mapping[str, float]], targets: Sequence[str], *, title: str) -> bytes:
    """A PNG of loss, learning rate, and DSC and S2S per target over the epochs, counted from 1.

    ``rows``: one per epoch with ``epoch`` (from 0), ``loss`` and ``learning_rate``, and
    ``validation_loss``, ``dsc_<target>`` and ``s2s_mm_<target>`` where the epoch was
    validated. The same rows give the same bytes.
    """
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI)
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.08, top=0.9, hspace=0.35, wspace=0.15)
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(2, 2)
    colours = colour_of(targets)
    both = {"loss": ("training patches", INK), "validation_loss": ("validation cases", "#D55E00")}
    _draw(panels[0][0], "loss", rows, both)
    _draw(
        panels[0][1],
        "DSC on validation cases",
        rows,
        {f"dsc_{name}": (display_name(name), colours[name]) for name in targets},
    )
    panels[0][1].set_ylim(0, 1)
    _draw(panels[1][0], "learning rate", rows, {"learning_rate": ("learning rate", INK)})
    _draw(
        panels[1][1],
        "S2S on validation cases (mm), without missed and spurious organs",
        rows,
        {f"s2s_mm_{name}": (_with_left_out(name, rows), colours[name]) for name in targets},
    )
    FigureCanvasAgg(figure)
    png = BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _with_left_out(target: str, rows: Sequence[Mapping[str, float]]) -> str:
    """The name, and how many cases the last validation left out of its S2S."""
    validated = [row for row in rows if f"s2s_mm_{target}" in row]
    n = sum(n_left_out(validated[-1], state, target) for state in LEFT_OUT) if validated else 0
    return f"{display_name(target)}, last without {n}" if n else display_name(target)


def _draw(
    axes: Axes, title: str, rows: Sequence[Mapping[str, float]], curves: Mapping[str, tuple[str, str]]
) -> None:
    """The columns ``curves`` (column -> its name and colour); where a value is missing the line goes on."""
    for column, (name, colour) in curves.items():
        points = [(row["epoch"] + 1, row[column]) for row in rows if row.get(column) is not None]
        axes.plot(
            [epoch for epoch, _ in points],
            [value for _, value in points],
            color=colour,
            marker="." if len(points) < 60 else "",
            label=name,
        )
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    if len(curves) > 1:
        axes.legend(fontsize=8)
