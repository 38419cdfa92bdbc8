"""The report of a comparison: one HTML file that opens anywhere, with nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_attn.atomic import write_text
from ct_attn.metrics import CaseScore, Distribution, OrganSummary, summarize
from ct_attn.metrics.comparison import PairedComparison, Ranking, VolumeAgreement
from ct_attn.report.budget import MAX_PAGE_BYTES, fit_page, named
from ct_attn.report.comparison_plots import bland_altman_plot, difference_plot, rank_plot
from ct_attn.report.definitions import Definition, define
from ct_attn.report.legend import display_name
from ct_attn.report.page import MEASURES, CasePicture, Column, page_template
from ct_attn.report.paper_table import ROWS, left_out
from ct_attn.report.score_files import ScoreSettings

_COLUMNS = {column.field: column for column in MEASURES}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A run's numbers in one organ and measure, and how many cases they leave out."""

    numbers: Distribution
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    organ: str
    column: Column
    cells: tuple[_Cell, ...]


def write_comparison_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    settings: ScoreSettings,
    notes: Sequence[str],
    runs: Mapping[str, Sequence[CaseScore]],
    pairs: Sequence[PairedComparison],
    rankings: Sequence[Ranking],
    agreements: Sequence[VolumeAgreement],
    pictures: Sequence[tuple[str, Sequence[CasePicture]]] = (),
    max_bytes: int = MAX_PAGE_BYTES,
) -> None:
    """Write the report to ``path``, whole or not at all; the same input gives the same bytes.

    ``pictures``: the case's name and its pictures, in the order they are shown. So that the
    page stays within ``max_bytes``, the last ones give way, and the page says which.
    """
    measures = list(dict.fromkeys(pair.measure for pair in pairs))
    fixed = {
        "title": title,
        "facts": facts,
        "runs": list(runs),
        "lines": _lines([{s.organ: s for s in summarize(scores)} for scores in runs.values()]),
        "pairs": pairs,
        "columns": _COLUMNS,
        "differences": [
            difference_plot([pair for pair in pairs if pair.measure == measure], title=_title(measure))
            for measure in measures
        ],
        "rankings": [(_heading(ranking), rank_plot(ranking), ranking) for ranking in rankings],
        "agreements": [
            (f"{one.run}, {display_name(one.organ)}", bland_altman_plot(one))
            for one in agreements
            if one.points
        ],
        "definitions": _definitions(measures, settings),
    }
    last_first = [case_id for case_id, of_case in pictures for _ in of_case][::-1]

    def rendered(n_left_out: int) -> str:
        gone = last_first[:n_left_out]
        shown = [(case_id, of_case[: len(of_case) - gone.count(case_id)]) for case_id, of_case in pictures]
        said = f"pictures of {named(gone)} are left out ({len(gone)}); the folder pictures has them all."
        return page_template("compare.html").render(
            **fixed,
            notes=[*notes, *([f"So that this page stays below 20 MB, {said}"] if gone else [])],
            pictures=[(case_id, of_case) for case_id, of_case in shown if of_case],
        )

    write_text(path, fit_page(rendered, len(last_first), max_bytes=max_bytes))


def _definitions(measures: Sequence[str], settings: ScoreSettings) -> list[Definition]:
    """Of what the page shows, and how runs are compared where one has no number."""
    fields = {*measures, *(field for field, _, _ in ROWS), "volume_difference_ml"}
    return [
        *define(fields, settings.surface_convention, count_empty=settings.count_empty),
        Definition(
            term="An organ that is not there",
            meaning="Where one run rightly leaves an organ out and another draws one, the first is better.",
        ),
    ]


def _lines(summaries: Sequence[Mapping[str, OrganSummary]]) -> list[_Line]:
    """The rows of the paper's table, and the other measures that are compared."""
    lines = []
    for organ in summaries[0]:
        for field, _, _ in ROWS:
            cells = []
            for of_run in summaries:
                numbers = getattr(of_run[organ], field)
                cells.append(_Cell(numbers=numbers, left_out=left_out(of_run[organ], numbers)))
            lines.append(_Line(organ=organ, column=_COLUMNS[field], cells=tuple(cells)))
    return lines


def _title(measure: str) -> str:
    column = _COLUMNS[measure]
    return f"difference in {column.title}" + (f" ({column.unit})" if column.unit else "")


def _heading(ranking: Ranking) -> str:
    column = _COLUMNS[ranking.measure]
    return f"{column.title} {column.unit}".strip() + f", {display_name(ranking.organ)}"
