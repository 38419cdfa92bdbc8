"""The report of a training run: its curves, its worst cases, and what the gates came to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_attn.atomic import write_text
from ct_attn.report.definitions import define
from ct_attn.report.legend import colour_of
from ct_attn.report.page import CasePicture, page_template
from ct_attn.report.plots import curve_plot

#: The ratios of the log's columns, in the order of the page's table.
RATIOS = ("dsc", "iou", "precision", "recall")
#: States whose cases a mean S2S leaves out, as the log's columns ``n_<state>_<target>`` count them.
LEFT_OUT = ("missed", "spurious")
#: So many validation cases are listed.
LISTED_CASES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """A validation case; ``dsc`` and ``s2s_mm`` per target are nan where ``state`` says why."""

    case_id: str
    state: Sequence[str]
    dsc: Sequence[float]
    s2s_mm: Sequence[float]


def write_run_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    log: Sequence[Mapping[str, float]],
    targets: Sequence[str],
    worst: Sequence[WorstCase] = (),
    pictures: Sequence[CasePicture] = (),
    strip: CasePicture | None,
) -> None:
    """Write the report to ``path``, whole or not at all; the same input gives the same bytes.

    ``log``: the rows of the run's ``log.csv``, one per epoch, ``epoch`` counted from 0; what
    comes from a validation is there where the epoch was validated. ``worst``: the cases of
    the last validation, worst first, of which ``pictures`` show the first. ``strip``: the
    attention maps.
    """
    html = page_template("run.html").render(
        title=title,
        facts=facts,
        plots=[
            ("Loss", _curves(log, {"loss": "training patches", "validation_loss": "validation cases"})),
            (
                "DSC on training patches",
                _curves(log, {f"training_dsc_{name}": name for name in targets}, highest=1.0),
            ),
            ("DSC on validation cases", _curves(log, {f"dsc_{name}": name for name in targets}, highest=1.0)),
            (
                "S2S on validation cases (mm), without organs that are missed or spurious",
                _curves(log, {f"s2s_mm_{name}": name for name in targets}),
            ),
            ("Learning rate", _curves(log, {"learning_rate": "learning rate"})),
        ],
        targets=targets,
        latest=_latest(log, targets),
        colours=colour_of(targets),
        worst=[_as_shown(case) for case in worst[:LISTED_CASES]],
        n_cases=len(worst),
        pictures=pictures,
        strip=strip,
        definitions=define(
            {"dsc", "jaccard", "precision", "recall", "s2s_mm"},
            measured="in the working grid's spacing",
        ),
    )
    write_text(path, html)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Latest:
    """The last validated epoch, counted from 1: what the page's table says of it.

    ``loss`` and ``ratios`` (target -> DSC, IoU, precision, recall) of the training patches,
    then of the validation cases; None for what has no value. ``s2s_mm``: target -> the mean
    over the validation cases and how many it leaves out as missed and as spurious.
    """

    epoch: int
    loss: tuple[float | None, float | None]
    ratios: Mapping[str, tuple[tuple[float | None, ...], tuple[float | None, ...]]]
    s2s_mm: Mapping[str, tuple[float | None, int, int]]


def _latest(log: Sequence[Mapping[str, float]], targets: Sequence[str]) -> _Latest | None:
    row = next((row for row in reversed(log) if "dsc" in row), None)
    if row is None:
        return None

    def value(column: str) -> float | None:
        return _known(row.get(column, math.nan))

    def of_target(prefix: str, target: str) -> tuple[float | None, ...]:
        return tuple(value(f"{prefix}{ratio}_{target}") for ratio in RATIOS)

    return _Latest(
        epoch=round(row["epoch"]) + 1,
        loss=(value("loss"), value("validation_loss")),
        ratios={target: (of_target("training_", target), of_target("", target)) for target in targets},
        s2s_mm={
            target: (
                value(f"s2s_mm_{target}"),
                n_left_out(row, "missed", target),
                n_left_out(row, "spurious", target),
            )
            for target in targets
        },
    )


def n_left_out(row: Mapping[str, float], state: str, target: str) -> int:
    """How many cases a validated row of the log leaves out of the S2S of ``target``."""
    return round(row.get(f"n_{state}_{target}", 0))


def _curves(
    log: Sequence[Mapping[str, float]], names: Mapping[str, str], *, highest: float | None = None
) -> str:
    """A plot of the columns ``names`` (column -> name of its curve) over the epochs, counted from 1."""
    curves = {
        name: [
            (row["epoch"] + 1, row[column])
            for row in log
            if row.get(column) is not None and not math.isnan(row[column])
        ]
        for column, name in names.items()
    }
    largest = max((value for points in curves.values() for _, value in points), default=1.0)
    return curve_plot(curves, title=" and ".join(names.values()), highest=highest or largest)


def _as_shown(case: WorstCase) -> tuple[str, list[tuple[str, float | None, float | None]]]:
    """The case, and per target its state, DSC and S2S; None for what has no value."""
    values = zip(case.state, case.dsc, case.s2s_mm, strict=True)
    return case.case_id, [(state, _known(dsc), _known(s2s_mm)) for state, dsc, s2s_mm in values]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
