"""The report of a training run: its curves, and what the gates came to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ct_attn.atomic import write_text
from ct_attn.report.page import CasePicture, page_template
from ct_attn.report.plots import curve_plot


def write_run_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    log: Sequence[Mapping[str, float]],
    targets: Sequence[str],
    strip: CasePicture | None,
) -> None:
    """Write the report to ``path``, whole or not at all; the same input gives the same bytes.

    ``log``: one row per epoch with ``epoch`` (from 0), ``loss`` and ``learning_rate``, and
    ``dsc_<target>`` where the epoch was validated. ``strip``: the attention maps.
    """
    html = page_template("run.html").render(
        title=title,
        facts=facts,
        plots=[
            ("Loss on training patches", _curves(log, {"loss": "loss"})),
            ("DSC on validation cases", _curves(log, {f"dsc_{name}": name for name in targets}, highest=1.0)),
            ("Learning rate", _curves(log, {"learning_rate": "learning rate"})),
        ],
        strip=strip,
    )
    write_text(path, html)


def _curves(
    log: Sequence[Mapping[str, float]], names: Mapping[str, str], *, highest: float | None = None
) -> str:
    """A plot of the columns ``names`` (column -> name of its curve) over the epochs, counted from 1."""
    curves = {
        name: [(row["epoch"] + 1, row[column]) for row in log if row.get(column) is not None]
        for column, name in names.items()
    }
    largest = max((value for points in curves.values() for _, value in points), default=1.0)
    return curve_plot(curves, title=" and ".join(names.values()), highest=highest or largest)
