"""The report of an evaluation: one HTML file that opens anywhere, with nothing fetched."""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ct_attn.atomic import write_text
from ct_attn.metrics import CaseScore, OrganSummary, State, SurfaceConvention
from ct_attn.metrics.comparison import volume_agreement
from ct_attn.report.comparison_plots import bland_altman_plot
from ct_attn.report.legend import colour_of, display_name
from ct_attn.report.plots import Measure, range_bar, score_plot
from ct_attn.report.reduced import ReducedCase
from ct_attn.report.score_files import ScoreSettings
from ct_attn.report.viewer import viewer_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class CasePicture:
    """A picture to show; ``alt`` says in words what is on it, ``caption`` how to read it."""

    case_id: str
    png: bytes
    alt: str
    caption: str = ""

    @property
    def size_px(self) -> tuple[int, int]:
        """Columns and rows, so that the page keeps the room before the picture is decoded."""
        wide, high = struct.unpack(">2I", self.png[16:24])
        return wide, high

    @property
    def data_uri(self) -> str:
        return f"data:image/png;base64,{b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustration:
    """A case to look at: ``rank`` says why it was chosen (worst, median, best ...)."""

    case_id: str
    rank: str
    pictures: tuple[CasePicture, ...] = ()
    viewer: ReducedCase | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A number of :class:`CaseScore` (and, where it has one, :class:`OrganSummary`)."""

    field: str
    title: str
    digits: int
    unit: str = ""


MEASURES = (
    Column(field="dsc", title="DSC", digits=3),
    Column(field="precision", title="Precision", digits=3),
    Column(field="recall", title="Recall", digits=3),
    Column(field="jaccard", title="Jaccard", digits=3),
    Column(field="s2s_mm", title="S2S", unit="mm", digits=2),
    Column(field="hd95_mm", title="HD95", unit="mm", digits=2),
    Column(field="hd_mm", title="HD", unit="mm", digits=2),
    Column(field="surface_dsc_1mm", title="Surface DSC", unit="1 mm", digits=3),
    Column(field="surface_dsc_2mm", title="Surface DSC", unit="2 mm", digits=3),
    Column(field="surface_dsc_3mm", title="Surface DSC", unit="3 mm", digits=3),
    Column(field="volume_difference_ml", title="Volume difference", unit="ml", digits=1),
    Column(field="volume_difference_percent", title="Volume difference", unit="%", digits=1),
    Column(field="centroid_mm", title="Centroids apart", unit="mm", digits=2),
    Column(field="directed_mean_mm", title="Mean of directed averages", unit="mm", digits=2),
    Column(field="accuracy", title="Accuracy", digits=5),
)
#: What stands in the tables at first; the others are there on demand.
FIRST = ("dsc", "precision", "recall", "surface_dsc_2mm", "s2s_mm", "hd95_mm")
PLOTTED: tuple[Measure, ...] = ("dsc", "surface_dsc_2mm", "s2s_mm", "hd95_mm")
VOLUMES = (
    Column(field="truth_ml", title="Truth", unit="ml", digits=1),
    Column(field="predicted_ml", title="Predicted", unit="ml", digits=1),
)
#: What is said of the cases of each state, and where a summary counts them.
COUNTS = tuple(
    (state, f"n_{state.name.lower()}")
    for state in (State.SCORED, State.MISSED, State.SPURIOUS, State.BOTH_EMPTY, State.NOT_LABELLED)
)
#: The surface of a mask by each convention, in words for the report.
SURFACES: Mapping[SurfaceConvention, str] = {
    SurfaceConvention.AREA: "surface elements finer than a voxel, weighted by their area (convention area)",
    SurfaceConvention.VOXEL: "boundary voxels, each counted once (convention voxel, as MONAI counts)",
    SurfaceConvention.CONTOUR: "outer contours of axial slices, each slice for itself and averaged over the "
    "slices that show both (convention contour)",
}


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    settings: ScoreSettings | None = None,
    scores: Sequence[CaseScore],
    summaries: Sequence[OrganSummary],
    illustrations: Sequence[Illustration] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write the report to ``path``, whole or not at all; the same input gives the same bytes.

    ``illustrations`` stand in their order, worst case first. ``facts`` and ``notes`` are
    shown as they are. Nothing is added that could tell who, where or when: no user, path
    or time.
    """
    settings = settings or ScoreSettings()
    organs = [summary.organ for summary in summaries]
    columns = (*MEASURES, *VOLUMES)
    html = page_template("page.html").render(
        title=title,
        facts=facts,
        notes=notes,
        summaries=summaries,
        bars={
            summary.organ: range_bar(summary.dsc, colour_of(organs)[summary.organ]) for summary in summaries
        },
        counts=COUNTS,
        measures=MEASURES,
        first=[column for column in MEASURES if column.field in FIRST],
        columns=sorted(columns, key=lambda column: column.field not in FIRST),
        first_fields=FIRST,
        surface=SURFACES[settings.surface_convention],
        count_empty=settings.count_empty,
        colours=colour_of(organs),
        scores=worst_first(scores),
        states=list(dict.fromkeys(score.state for score in scores)),
        plots=[score_plot(scores, measure=measure) for measure in PLOTTED if _has_any(scores, measure)],
        agreements=[
            (one, bland_altman_plot(one, colour=colour_of(organs)[one.organ]))
            for one in volume_agreement("prediction", scores)
            if one.points
        ],
        illustrations=[one for one in illustrations if one.pictures],
        places={one.case_id: place for place, one in enumerate(illustrations) if one.pictures},
        scores_of=_by_case(scores),
        viewer=viewer_parts(
            {f"{one.case_id} ({one.rank})": one.viewer for one in illustrations if one.viewer}
        ),
        viewed=[one.case_id for one in illustrations if one.viewer],
    )
    write_text(path, html)


def _has_any(scores: Sequence[CaseScore], measure: str) -> bool:
    return measure == "dsc" or any(getattr(score, measure) is not None for score in scores)


def worst_first(scores: Sequence[CaseScore]) -> list[CaseScore]:
    """By rising DSC; what has none comes last."""
    return sorted(scores, key=lambda score: math.inf if score.dsc is None else score.dsc)


def format_number(value: float | None, digits: int) -> str:
    return "—" if value is None else f"{value:.{digits}f}"


def page_template(name: str) -> Template:
    """The template ``name`` of this folder; it is refused a name that nothing was given for."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "display": display_name}
    return environment.get_template(name)


def _by_case(scores: Sequence[CaseScore]) -> dict[str, list[CaseScore]]:
    cases: dict[str, list[CaseScore]] = {}
    for score in scores:
        cases.setdefault(score.case_id, []).append(score)
    return cases
