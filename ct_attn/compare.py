"""The step from evaluations of several runs to a comparison of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from ct_attn import __version__
from ct_attn.atomic import write_bytes, write_text
from ct_attn.compare_pictures import SAME_VOLUME, ComparedCase, Evaluated, Picturing, draw_compared
from ct_attn.errors import UserError
from ct_attn.metrics.comparison import (
    PairedComparison,
    Ranking,
    VolumeAgreement,
    average_runs,
    compare_runs,
    rank_runs,
    volume_agreement,
)
from ct_attn.metrics.scores import CaseScore
from ct_attn.report.compare_page import write_comparison_report
from ct_attn.report.paper_table import latex_table, markdown_table
from ct_attn.report.score_files import ScoreSettings, read_scores, write_record_json, write_rows_csv

Key = tuple[str, str]  # case and organ

SCORES_NAMES = ("scores.json", "scores.csv")
_SHOWN = 6  # cases that a message names before it says "and so many more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was written, and the numbers in it. ``notes`` must be said aloud."""

    runs: Mapping[str, Sequence[CaseScore]]
    pairs: tuple[PairedComparison, ...]
    rankings: tuple[Ranking, ...]
    agreements: tuple[VolumeAgreement, ...]
    notes: tuple[str, ...]
    report: Path
    comparison_json: Path
    comparison_csv: Path
    markdown: Path
    latex: Path
    pictures: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One evaluation: a file of scores, and the run it belongs to. No ``settings``: it doesn't say them."""

    run: str
    path: Path
    scores: dict[Key, CaseScore]
    settings: ScoreSettings | None


def compare(
    runs: Sequence[str],
    output: Path,
    *,
    intersection: bool = False,
    title: str = "Comparison",
    picturing: Picturing | None = None,
) -> Comparison:
    """Compare ``runs`` case by case; write tables, JSON and HTML into ``output``.

    A run is ``PATH`` or ``NAME=PATH``: the output folder of an evaluation, its
    ``scores.json`` or ``scores.csv``, or a folder of such folders, which are repeated
    runs (seeds) and averaged per case. A name given again adds repeated runs too.
    ``picturing``: the cases to draw as all runs have them; of repeated runs the first.

    Raises :class:`UserError` when there are fewer than two runs or a path holds no
    scores, when runs were scored by different conventions or against different truths,
    when they hold different cases or organs, unless ``intersection`` restricts them
    to what all have, and when a picture's masks are not those that were scored. Nothing is
    written then.
    """
    sources = _read(runs)
    _require_same_settings(sources)
    notes = _notes(sources)
    keys, left_out = _common_keys(sources, intersection=intersection)
    notes += left_out
    _require_same_truth(sources, keys)
    by_run: dict[str, list[list[CaseScore]]] = {}
    for source in sources:
        by_run.setdefault(source.run, []).append([source.scores[key] for key in keys])
    averaged = {run: average_runs(repeated) for run, repeated in by_run.items()}
    notes += [
        f"{run} is the average of {len(repeated)} repeated runs, case by case."
        for run, repeated in by_run.items()
        if len(repeated) > 1
    ]
    drawn = draw_compared(_first_of_each(sources, keys), picturing or Picturing())
    if drawn:
        notes += [
            f"{run}: the first of its {len(repeated)} repeated runs is drawn."
            for run, repeated in by_run.items()
            if len(repeated) > 1
        ]
    return _write(output, title, averaged, tuple(notes), sources[0].settings or ScoreSettings(), drawn)


def _first_of_each(sources: Sequence[_Source], keys: Sequence[Key]) -> dict[str, Evaluated]:
    """The first evaluation of every run."""
    found: dict[str, Evaluated] = {}
    for source in sources:
        scores = {key: source.scores[key] for key in keys}
        found.setdefault(source.run, Evaluated(folder=source.path.parent, scores=scores))
    return found


def _read(runs: Sequence[str]) -> list[_Source]:
    named = [_name_and_path(run) for run in runs]
    usual = _usual_names([path for _, path in named])
    found = [
        (name or usual[place], file)
        for place, (name, path) in enumerate(named)
        for file in _score_files(path)
    ]
    if len({name for name, _ in found}) < 2:
        raise UserError(
            "ct-attn compare",
            expected="two runs or more with different names",
            found=", ".join(sorted({name for name, _ in found})) or "none",
            remedy="give another evaluation, or name them: first=PATH second=PATH",
        )
    sources = []
    for name, file in found:
        scores, settings = read_scores(file)
        keyed = {(score.case_id, score.organ): score for score in scores}
        sources.append(_Source(run=name, path=file, scores=keyed, settings=settings))
    return sources


def _name_and_path(run: str) -> tuple[str, Path]:
    name, equals, path = run.partition("=")
    if equals and name and not Path(run).exists():
        return name, Path(path)
    return "", Path(run)


def _usual_names(paths: Sequence[Path]) -> list[str]:
    """What tells the paths apart: their last parts, less those at the end that all share."""
    parts = [list(path.resolve().parts) for path in paths]
    for own in parts:
        if own[-1] in SCORES_NAMES:
            own.pop()
    while len({own[-1] for own in parts}) == 1 and min(map(len, parts)) > 1:
        for own in parts:
            own.pop()
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(
        "ct-attn compare",
        expected="different runs",
        found=f"{paths[0]} more than once",
        remedy="give each once",
    )


def _score_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    own = _scores_in(path)
    if own is not None:
        return [own]
    for pattern in ("*", "*/*"):  # a folder of evaluations, or of runs that keep theirs in a folder
        found = [
            scores for folder in sorted(path.glob(pattern)) if (scores := _scores_in(folder)) is not None
        ]
        if found:
            return found
    raise UserError(
        path,
        expected=f"{' or '.join(SCORES_NAMES)}, or folders that hold one",
        found="neither" if path.exists() else "no such folder",
        remedy="give what ct-attn evaluate wrote",
    )


def _scores_in(folder: Path) -> Path | None:
    return next((folder / name for name in SCORES_NAMES if (folder / name).is_file()), None)


def _require_same_settings(sources: Sequence[_Source]) -> None:
    for one, other in pairwise(sources):
        if _counting(one.settings) != _counting(other.settings):
            ours, theirs = (
                _counting(source.settings)
                + ("" if source.settings else f", as {source.path.name} doesn't say otherwise")
                for source in (one, other)
            )
            raise UserError(
                other.path,
                expected=f"scores counted as those of {one.path} ({ours})",
                found=theirs,
                remedy="evaluate both alike",
            )


def _counting(settings: ScoreSettings | None) -> str:
    settings = settings or ScoreSettings()
    return f"surface convention {settings.surface_convention}" + (
        ", both empty counted as 1" if settings.count_empty else ""
    )


def _notes(sources: Sequence[_Source]) -> list[str]:
    notes = []
    for source in sources:
        if source.settings is None:
            notes.append(
                f"{source.run}: {source.path.name} doesn't say how it was counted, and no "
                f"{source.path.with_suffix('.json').name} of the same scores is beside it; "
                f"taken for the usual: {_counting(None)}."
            )
            continue
        if source.settings.failed:
            notes.append(f"{source.run}: could not be scored: {_some(source.settings.failed)}.")
        if source.settings.resampled:
            notes.append(f"{source.run}: brought onto the truth's grid: {_some(source.settings.resampled)}.")
    return list(dict.fromkeys(notes))  # repeated runs may say the same


def _common_keys(sources: Sequence[_Source], *, intersection: bool) -> tuple[list[Key], list[str]]:
    """The cases and organs that all ``sources`` hold, and in words what was left out."""
    common = set.intersection(*(set(source.scores) for source in sources))
    notes = []
    for source in sources:
        extra = [key for key in source.scores if key not in common]
        if not extra:
            continue
        words = _some(_in_words(extra, common))
        if not intersection:
            raise UserError(
                source.path,
                expected="the same cases and organs in all runs",
                found=f"only here or not everywhere: {words}",
                remedy="evaluate the same cases, or restrict all to what they share with --intersection",
            )
        notes.append(f"Restricted to what all runs have; left out of {source.run}: {words}.")
    if not common:
        raise UserError(
            "ct-attn compare", expected="cases that all runs have", found="none", remedy="compare other runs"
        )
    return [key for key in sources[0].scores if key in common], notes


def _in_words(extra: Sequence[Key], common: set[Key]) -> list[str]:
    """Whole cases by their name, single organs with theirs."""
    shared_cases = {case_id for case_id, _ in common}
    return list(
        dict.fromkeys(
            case_id if case_id not in shared_cases else f"{organ} of {case_id}" for case_id, organ in extra
        )
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _require_same_truth(sources: Sequence[_Source], keys: Sequence[Key]) -> None:
    """The true volumes must agree: a case id alone doesn't make a case the same."""
    for source in sources[1:]:
        for key in keys:
            ours, theirs = sources[0].scores[key].truth_ml, source.scores[key].truth_ml
            if not _same_volume(ours, theirs):
                raise UserError(
                    source.path,
                    expected=f"{key[1]} of {key[0]} as in {sources[0].path} (true volume {_volume(ours)})",
                    found=_volume(theirs),
                    remedy="evaluate all runs against one truth",
                )


def _same_volume(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= SAME_VOLUME * max(one, other)


def _volume(volume_ml: float | None) -> str:
    return "not labelled" if volume_ml is None else f"{volume_ml:.6g} ml"


def _write(
    output: Path,
    title: str,
    runs: Mapping[str, Sequence[CaseScore]],
    notes: tuple[str, ...],
    settings: ScoreSettings,
    drawn: Sequence[ComparedCase],
) -> Comparison:
    pictures = {output / "pictures" / name: picture for one in drawn for name, picture in one.files.items()}
    made = Comparison(
        runs=runs,
        pairs=tuple(compare_runs(runs)),
        rankings=tuple(rank_runs(runs)),
        agreements=tuple(one for run, scores in runs.items() for one in volume_agreement(run, scores)),
        notes=notes,
        report=output / "report.html",
        comparison_json=output / "comparison.json",
        comparison_csv=output / "comparison.csv",
        markdown=output / "table.md",
        latex=output / "table.tex",
        pictures=tuple(pictures),
    )
    said = [f"Distances by {_counting(settings)}.", *notes]
    tables = {made.markdown: markdown_table(runs, said), made.latex: latex_table(runs, said)}
    write_record_json(
        made.comparison_json,
        {
            "runs": list(runs),
            "notes": list(notes),
            "settings": asdict(settings),
            "pairs": [asdict(pair) for pair in made.pairs],
            "rankings": [asdict(ranking) for ranking in made.rankings],
            "volumes": [asdict(agreement) for agreement in made.agreements],
        },
    )
    write_rows_csv(made.comparison_csv, made.pairs, PairedComparison)
    for path, text in tables.items():
        write_text(path, text)
    for path, picture in pictures.items():
        write_bytes(path, picture.png)
    cases = len({score.case_id for scores in runs.values() for score in scores})
    write_comparison_report(
        made.report,
        title=title,
        facts={"Runs": ", ".join(runs), "Cases": str(cases), "Written by": f"ct_attn {__version__}"},
        settings=settings,
        notes=notes,
        runs=runs,
        pairs=made.pairs,
        rankings=made.rankings,
        agreements=made.agreements,
        pictures=[(one.case_id, (one.slices, one.surfaces)) for one in drawn],
    )
    return made
