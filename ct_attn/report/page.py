"""The report of an evaluation: one HTML file that opens anywhere, with nothing fetched."""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib.image import imread

from ct_attn.atomic import write_text
from ct_attn.metrics import CaseScore, OrganSummary, State
from ct_attn.metrics.comparison import volume_agreement
from ct_attn.report.budget import MAX_PAGE_BYTES, fit_page, named
from ct_attn.report.comparison_plots import bland_altman_plot
from ct_attn.report.definitions import Definition, define
from ct_attn.report.legend import PALETTE, colour_of, display_name
from ct_attn.report.plots import Measure, range_bar, score_plot
from ct_attn.report.png import palette_png
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


def half_size(picture: CasePicture) -> CasePicture:
    """The picture at half its columns and rows, averaged; about a third of its bytes."""
    rgb = imread(BytesIO(picture.png))[..., :3]
    rows, columns = (size // 2 for size in rgb.shape[:2])
    blocks = rgb[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3)
    averaged = (255 * blocks.mean(axis=(1, 3))).round().astype(np.uint8)
    return replace(picture, png=palette_png(averaged, PALETTE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustration:
    """A case to look at: ``rank`` says why it was chosen (worst, median, best ...).

    ``interest``: its place in the order in which cases are worth a page's room; what comes
    last gives way first.
    """

    case_id: str
    rank: str
    interest: int = 0
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
    max_bytes: int = MAX_PAGE_BYTES,
) -> None:
    """Write the report to ``path``, whole or not at all; the same input gives the same bytes.

    ``illustrations`` stand in their order, worst case first. So that the page stays within
    ``max_bytes``, those of the least interest give way, and the page says which. ``facts`` and
    ``notes`` are shown as they are. Nothing is added that could tell who, where or when: no
    user, path or time.
    """
    settings = settings or ScoreSettings()
    organs = [summary.organ for summary in summaries]
    columns = (*MEASURES, *VOLUMES)
    fixed = {
        "title": title,
        "facts": facts,
        "summaries": summaries,
        "bars": {
            summary.organ: range_bar(summary.dsc, colour_of(organs)[summary.organ]) for summary in summaries
        },
        "counts": COUNTS,
        "measures": MEASURES,
        "first": [column for column in MEASURES if column.field in FIRST],
        "columns": sorted(columns, key=lambda column: column.field not in FIRST),
        "first_fields": FIRST,
        "definitions": [
            *define(
                [column.field for column in columns],
                settings.surface_convention,
                count_empty=settings.count_empty,
            ),
            Definition(
                term="Intervals",
                meaning="Bias-corrected and accelerated bootstrap over cases with a fixed seed.",
            ),
        ],
        "colours": colour_of(organs),
        "scores": worst_first(scores),
        "states": list(dict.fromkeys(score.state for score in scores)),
        "plots": [score_plot(scores, measure=measure) for measure in PLOTTED if _has_any(scores, measure)],
        "agreements": [
            (one, bland_altman_plot(one, colour=colour_of(organs)[one.organ]))
            for one in volume_agreement("prediction", scores)
            if one.points
        ],
        "scores_of": _by_case(scores),
    }
    parts = _least_interest_first(illustrations)

    def rendered(n_left_out: int) -> str:
        kept = _without(illustrations, parts[:n_left_out])
        return page_template("page.html").render(
            **fixed,
            notes=[*notes, *_left_out_in_words(parts[:n_left_out])],
            illustrations=[one for one in kept if one.pictures],
            places={one.case_id: place for place, one in enumerate(kept) if one.pictures},
            viewer=viewer_parts({f"{one.case_id} ({one.rank})": one.viewer for one in kept if one.viewer}),
            viewed=[one.case_id for one in kept if one.viewer],
        )

    write_text(path, fit_page(rendered, len(parts), max_bytes=max_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A picture (its place among its case's) or, where there is no place, what the viewer holds of a case."""

    case_id: str
    picture: int | None


def _least_interest_first(illustrations: Sequence[Illustration]) -> list[_Part]:
    """What can be left out: of the cases of the least interest first, their contours last."""
    parts = []
    for one in sorted(illustrations, key=lambda one: one.interest, reverse=True):
        if one.viewer:
            parts.append(_Part(case_id=one.case_id, picture=None))
        places = reversed(range(len(one.pictures)))
        parts += [_Part(case_id=one.case_id, picture=place) for place in places]
    return parts


def _without(illustrations: Sequence[Illustration], left_out: Sequence[_Part]) -> list[Illustration]:
    gone = {(part.case_id, part.picture) for part in left_out}
    return [
        replace(
            one,
            pictures=tuple(
                picture for place, picture in enumerate(one.pictures) if (one.case_id, place) not in gone
            ),
            viewer=None if (one.case_id, None) in gone else one.viewer,
        )
        for one in illustrations
    ]


def _left_out_in_words(left_out: Sequence[_Part]) -> list[str]:
    """A note, where anything is left out."""
    if not left_out:
        return []
    pictures = sum(part.picture is not None for part in left_out)
    viewed = len(left_out) - pictures
    what = [f"{pictures} picture{'s' if pictures > 1 else ''}"] if pictures else []
    what += [f"{viewed} case{'s' if viewed > 1 else ''} of the viewer"] if viewed else []
    return [
        f"So that this page stays below 20 MB, {' and '.join(what)} are left out: "
        f"those of {named(part.case_id for part in left_out)}. All numbers are here."
    ]


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
