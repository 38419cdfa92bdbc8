"""The contact sheet of a prepared data set: every case measured and seen, the odd ones marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_attn.atomic import write_text
from ct_attn.report.legend import colour_of
from ct_attn.report.page import CasePicture, page_template


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """A case on the sheet. ``volumes_ml`` by organ; ``marks`` say what is worth a look."""

    case_id: str
    part: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    hu: tuple[float, float, float, float, float]
    padding_voxels: int
    volumes_ml: Mapping[str, float]
    flips: str
    corrections: Sequence[str]
    marks: Sequence[str]


def write_contact_sheet(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    notices: Sequence[str],
    refused: Mapping[str, str],
    rows: Sequence[SheetRow],
    organs: Sequence[str],
    pictures: Sequence[CasePicture],
) -> None:
    """Write the sheet to ``path``, whole or not at all; the same input gives the same bytes.

    All is shown as given; nothing is added that could tell who, where or when.
    """
    html = page_template("contact_sheet.html").render(
        title=title,
        facts=facts,
        notices=notices,
        refused=refused,
        rows=rows,
        organs=organs,
        colours=colour_of(organs),
        pictures=pictures,
        marks_of={row.case_id: row.marks for row in rows},
    )
    write_text(path, html)
