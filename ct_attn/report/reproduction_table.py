"""Published figures and ours as a table to read: one line per network, stage and organ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_attn.atomic import write_text
from ct_attn.metrics import SurfaceConvention
from ct_attn.report.definitions import Definition, define, s2s_by
from ct_attn.report.legend import display_name
from ct_attn.report.page import page_template

#: Measures, their headings and digits; S2S by the contours of slices stands beside ours.
COLUMNS = {
    "dsc": ("DSC", 3), "precision": ("Precision", 3), "recall": ("Recall", 3), "s2s_mm": ("S2S, mm", 3),
    "parameters_million": ("Parameters, M", 2), "inference_s": ("Inference, s", 3),
}  # fmt: skip
CONTOUR = "by contours"
HEADINGS = ("Table", "Network", "Stage", "Data set", "Train/test", "Organ", "", *(
    heading for metric, (name, _) in COLUMNS.items()
    for heading in ((name, f"S2S, mm, {CONTOUR}") if metric == "s2s_mm" else (name,))
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproducedFigure:
    """One figure: as published, and ours. None where there is none.

    ``contour_mean`` and ``contour_std`` are our S2S by the convention of the authors'
    code, over the ``contour_n`` cases that have one (masks without a slice in common have
    none). ``n`` of our cases have a number; ``n_missed`` and ``n_spurious`` have no distance.
    ``note`` says why a figure of ours is missing.
    """

    experiment: str
    table: str
    method: str
    stage: str
    data_set: str
    train_test: str
    organ: str
    metric: str
    published_mean: float | None
    published_std: float | None
    mean: float | None = None
    std: float | None = None
    n: int | None = None
    n_missed: int | None = None
    n_spurious: int | None = None
    contour_mean: float | None = None
    contour_std: float | None = None
    contour_n: int | None = None
    data: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One network, stage and organ: the published figures, ours below, in the order of the headings.

    ``note`` says why there are none of ours, or of how many cases they are and which their
    distances leave out.
    """

    about: tuple[str, ...]
    published: tuple[str, ...]
    ours: tuple[str, ...]
    note: str


def make_lines(figures: Sequence[ReproducedFigure]) -> list[Line]:
    """The lines of ``figures``; those of a network stand with each of its organs."""
    groups: dict[tuple[str, ...], dict[str, ReproducedFigure]] = {}
    networks: dict[tuple[str, ...], dict[str, ReproducedFigure]] = {}
    for figure in figures:
        about = (figure.table, figure.method, figure.stage, figure.data_set, figure.train_test)
        place = (
            groups.setdefault((*about, figure.organ), {}) if figure.organ else networks.setdefault(about, {})
        )
        place[figure.metric] = figure
    return [_line(about, {**networks.get(about[:-1], {}), **found}) for about, found in groups.items()]


def _line(about: tuple[str, ...], found: Mapping[str, ReproducedFigure]) -> Line:
    published, ours = [], []
    for metric, (_, digits) in COLUMNS.items():
        figure = found.get(metric)
        published.append(
            "–" if figure is None else _spread(figure.published_mean, figure.published_std, digits)
        )
        ours.append("–" if figure is None else _spread(figure.mean, figure.std, digits))
        if metric == "s2s_mm":
            published.append("")
            ours.append("–" if figure is None else _spread(figure.contour_mean, figure.contour_std, digits))
    return Line(
        about=(*about[:-1], display_name(about[-1])),
        published=tuple(published),
        ours=tuple(ours),
        note=_note(found),
    )


def _note(found: Mapping[str, ReproducedFigure]) -> str:
    notes = {figure.note: None for figure in found.values() if figure.note}
    dsc, distance = found.get("dsc"), found.get("s2s_mm")
    if dsc is not None and dsc.n is not None:
        notes[f"n = {dsc.n}" + _of_distances(distance)] = None
    figure = distance or dsc
    if figure is not None and (figure.n_missed or figure.n_spurious):
        notes[f"{figure.n_missed} missed, {figure.n_spurious} spurious (DSC 0; not in the distances)"] = None
    return "; ".join(notes)


def _of_distances(figure: ReproducedFigure | None) -> str:
    if figure is None or figure.n is None:
        return ""
    contours = "" if figure.contour_n is None else f", {CONTOUR} {figure.contour_n}"
    return f"; S2S {figure.n}{contours}"


def _spread(mean: float | None, std: float | None, digits: int) -> str:
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def markdown(lines: Sequence[Line], notes: Sequence[str]) -> str:
    """The table and the notes below it."""
    rows = [f"| {' | '.join(HEADINGS)} | Note |", "|---" * (len(HEADINGS) + 1) + "|"]
    for line in lines:
        rows.append(f"| {' | '.join([*line.about, 'published', *line.published])} | |")
        rows.append(f"| {' | '.join([*line.about, 'ours', *line.ours])} | {line.note} |")
    return "\n".join([*rows, "", *(f"- {note}" for note in notes)]) + "\n"


def _definitions() -> list[Definition]:
    """How ours are defined; what the paper measured by is not all published."""
    return [
        *define({"dsc", "precision", "recall", "s2s_mm"}),
        Definition(
            term=f"S2S, {CONTOUR}",
            meaning=f"The convention of the authors' released code. {s2s_by(SurfaceConvention.CONTOUR)}",
        ),
        Definition(term="Inference", meaning="Mean seconds of the network alone per scan, all its windows."),
    ]


def write_page(
    path: Path, *, title: str, facts: Mapping[str, str], notes: Sequence[str], lines: Sequence[Line]
) -> None:
    """The same as one HTML file, whole or not at all."""
    html = page_template("reproduction.html").render(
        title=title, facts=facts, notes=notes, headings=HEADINGS, lines=lines, definitions=_definitions()
    )
    write_text(path, html)
