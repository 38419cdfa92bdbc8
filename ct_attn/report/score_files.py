"""Scores as files for programs: CSV and JSON, written and read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_attn import __version__, atomic
from ct_attn.errors import UserError
from ct_attn.metrics.scores import CaseScore, State, SurfaceConvention
from ct_attn.metrics.slices import SliceCounts, SliceScore, slice_scores
from ct_attn.metrics.statistics import OrganSummary

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_WORDS = ("case_id", "organ", "state")
_NUMBERS = tuple(field.name for field in fields(CaseScore) if field.name not in _WORDS)
_REMEDY = "give the output folder of ct-attn evaluate, or its scores.json or scores.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """How an evaluation counted, and the cases whose numbers need a word."""

    surface_convention: SurfaceConvention = SurfaceConvention.AREA
    count_empty: bool = False
    resampled: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def write_scores_json(
    path: Path,
    scores: Sequence[CaseScore],
    summaries: Sequence[OrganSummary],
    settings: ScoreSettings | None = None,
) -> None:
    """The settings, the summary per organ and every case's scores; a number that is not defined is null."""
    record = {
        "settings": asdict(settings or ScoreSettings()),
        "summary": [asdict(summary) for summary in summaries],
        "cases": [asdict(score) for score in scores],
    }
    write_record_json(path, record)


def write_scores_csv(path: Path, scores: Sequence[CaseScore]) -> None:
    """One line per case and organ; a number that is not defined is empty beside its state."""
    write_rows_csv(path, scores, CaseScore)


def write_slices_csv(path: Path, cases: Iterable[SliceCounts], *, count_empty: bool = False) -> None:
    """One line per case, organ and axial slice, whole or not at all; never more than a line in memory."""
    names = [field.name for field in fields(SliceScore)]
    with atomic.replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for counts in cases:
            for score in slice_scores(counts, count_empty=count_empty):
                writer.writerow([_as_cell(getattr(score, name)) for name in names])


def write_record_json(path: Path, record: Mapping[str, Any]) -> None:
    """``record`` with the version that wrote it before."""
    atomic.write_text(path, json.dumps({"version": __version__, **record}, indent=1) + "\n")


def write_rows_csv(path: Path, rows: Sequence[DataclassInstance], kind: type[DataclassInstance]) -> None:
    """One line per row of the dataclass ``kind``, a column per field; None is empty."""
    text = io.StringIO()
    names = [field.name for field in fields(kind)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _as_cell(getattr(row, name)) for name in names})
    atomic.write_text(path, text.getvalue())


def read_scores(path: Path) -> tuple[list[CaseScore], ScoreSettings | None]:
    """What :func:`write_scores_json` or :func:`write_scores_csv` wrote into ``path``.

    A CSV doesn't say its settings: they are those of the JSON of the same name beside it,
    when that holds the same cases and organs, else None. A column that an older version
    didn't write is None. Raises :class:`UserError` when it is no such file, or holds a
    case and organ twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        settings = None
        if path.suffix == ".json":
            record = json.loads(text)
            rows, settings = record["cases"], _settings(record.get("settings", {}))
        else:
            rows = list(csv.DictReader(io.StringIO(text)))
        scores = [_score(row) for row in rows]
    except FileNotFoundError:
        raise UserError(path, expected="scores", found="no such file", remedy=_REMEDY) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # UnicodeDecodeError is a ValueError
        found = f"something else ({type(error).__name__}: {error})"
        raise UserError(path, expected="scores of cases", found=found, remedy=_REMEDY) from error
    keys = [(score.case_id, score.organ) for score in scores]
    if not keys or len(set(keys)) != len(keys):
        twice = sorted({f"{case_id} {organ}" for case_id, organ in keys if keys.count((case_id, organ)) > 1})
        raise UserError(
            path,
            expected="every case and organ once",
            found=f"{', '.join(twice)} more often" if twice else "none",
            remedy=_REMEDY,
        )
    return scores, settings if path.suffix == ".json" else _settings_beside(path, set(keys))


def _settings_beside(path: Path, keys: set[tuple[str, str]]) -> ScoreSettings | None:
    """The settings in the JSON beside the CSV ``path``; None where it is not of the same scores."""
    sister = path.with_suffix(".json")
    if not sister.is_file():
        return None
    try:
        scores, settings = read_scores(sister)
    except UserError:  # some other JSON
        return None
    return settings if {(score.case_id, score.organ) for score in scores} == keys else None


def _settings(record: Mapping[str, Any]) -> ScoreSettings:
    return ScoreSettings(
        surface_convention=SurfaceConvention(record.get("surface_convention", SurfaceConvention.AREA)),
        count_empty=bool(record.get("count_empty", False)),
        resampled=tuple(record.get("resampled", ())),
        failed=tuple(record.get("failed", ())),
    )


def _score(row: Mapping[str, Any]) -> CaseScore:
    numbers = {name: None if row.get(name) in (None, "") else float(row[name]) for name in _NUMBERS}
    return CaseScore(case_id=row["case_id"], organ=row["organ"], state=State(row["state"]), **numbers)


def _as_cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
