"""The step from true and predicted masks to scores and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from ct_attn import __version__, atomic
from ct_attn.errors import UserError
from ct_attn.illustrate import (
    Showing,
    SideBySide,
    draw_side_by_side,
    illustrate,
    require_scans,
    sketches,
)
from ct_attn.labels import DISK_SCHEME
from ct_attn.metrics.scores import CaseScore, ScoreOptions, score_case
from ct_attn.metrics.slices import SliceCounts, count_slices
from ct_attn.metrics.statistics import OrganSummary, summarize
from ct_attn.pairing import Overlap, Pair, PairedMasks, Reading, find_pairs, read_pair
from ct_attn.report.page import Illustration, write_report
from ct_attn.report.score_files import (
    ScoreSettings,
    write_scores_csv,
    write_scores_json,
    write_slices_csv,
)
from ct_attn.workers import in_order

__all__ = ["Evaluation", "Reading", "Showing", "evaluate"]

#: A resampled prediction that shares less of the organs with the truth's grid is spoken of.
_LEAST_SHARED = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was written, and the numbers in it.

    ``n_cases``: with those that failed. ``failures``: why a case could not be scored, or
    not be drawn. ``resampled``: the cases whose prediction was brought onto the truth's grid.
    ``cut_off``: a sentence for each of them that lost organs by it, or could not have all.
    ``presumed``: sentences on masks of whose codes nothing was said.
    ``slices_csv``, ``pictures`` (a folder): None where they were not asked for.
    """

    scores: tuple[CaseScore, ...]
    summaries: tuple[OrganSummary, ...]
    scores_csv: Path
    scores_json: Path
    report: Path
    n_cases: int
    slices_csv: Path | None = None
    pictures: Path | None = None
    failures: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ()
    cut_off: tuple[str, ...] = ()
    presumed: tuple[str, ...] = ()


def evaluate(
    truth: Path,
    predicted: Path,
    output: Path,
    *,
    progress: Progress,
    fold: int | None = None,
    reading: Reading | None = None,
    options: ScoreOptions | None = None,
    title: str = "Evaluation",
    showing: Showing | None = None,
    per_slice: bool = False,
    workers: int = 1,
) -> Evaluation:
    """Score the masks in ``predicted`` against ``truth``; write CSV, JSON and HTML into ``output``.

    ``truth`` is a mask, a folder of masks or a manifest (its test cases, or the cases
    of ``fold``); ``predicted`` is a mask or a folder of masks named like the cases.
    Codes mean what ``reading`` says, else the files, else the manifest; a prediction of
    which nothing is said is read in the truth's codes. Where the scans are known (from a manifest),
    the report shows some cases, as ``showing`` says, and ``pictures/CASE.png`` each of them
    where it says so. ``per_slice``: ``slices.csv`` holds the
    scores of every axial slice; without, one of an earlier evaluation is removed, as it would
    lie beside scores of other masks. ``workers`` processes share the cases and change no byte.

    Raises :class:`UserError` for missing or extra files before anything is read. A case
    whose files cannot be used (torn, unknown codes, different grids) does not stop the
    others; it is named in ``failures``. Where all cases fail, the first one's error is
    raised and nothing is written.
    """
    pairs = find_pairs(truth, predicted, fold=fold)
    reading, options, showing = reading or Reading(), options or ScoreOptions(), showing or Showing()
    _require_folder(showing.attention)
    if showing.side_by_side:
        require_scans(pairs, truth)
    jobs = [_Job(pair=pair, reading=reading, options=options, per_slice=per_slice) for pair in pairs]
    task = progress.add_task("evaluating", total=len(jobs))
    results, failures = [], {}
    with in_order(_carry_out, jobs, workers=workers) as outcomes:
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, UserError):
                failures[job.pair.case_id] = outcome
            else:
                results.append(outcome)
            progress.update(task, advance=1, description=f"evaluated {job.pair.case_id}")
    if not results:
        raise next(iter(failures.values()))
    scores = [score for result in results for score in result.scores]
    to_draw = sketches(pairs, scores, reading, showing)
    illustrations, not_drawn = [], {}
    task = progress.add_task("drawing", total=len(to_draw)) if to_draw else task
    with in_order(illustrate, to_draw, workers=workers) as drawings:
        for sketch, drawing in zip(to_draw, drawings, strict=True):
            if isinstance(drawing, UserError):
                not_drawn[sketch.pair.case_id] = drawing
            else:
                illustrations.append(drawing)
            progress.update(task, advance=1, description=f"drawn {sketch.pair.case_id}")
    pictures = output / "pictures" if showing.side_by_side else None
    if pictures is not None:
        scored = [pair for pair in pairs if pair.case_id not in failures]
        beside = [SideBySide(pair=pair, reading=reading) for pair in scored]
        not_drawn |= _draw_side_by_side(beside, pictures, progress, workers)
    shown = _Shown(
        illustrations=illustrations,
        not_drawn=not_drawn,
        scans_known=any(pair.image is not None for pair in pairs),
        pictures=pictures,
    )
    return _write(output, title, results, failures, options, shown)


def _draw_side_by_side(
    jobs: Sequence[SideBySide], folder: Path, progress: Progress, workers: int
) -> dict[str, UserError]:
    """Write ``folder/CASE.png`` of every case as it is drawn; why some could not be, by case."""
    not_drawn = {}
    task = progress.add_task("drawing side by side", total=len(jobs))
    with in_order(draw_side_by_side, jobs, workers=workers) as drawings:
        for job, drawing in zip(jobs, drawings, strict=True):
            file = folder / f"{job.pair.case_id}.png"
            if isinstance(drawing, UserError):
                not_drawn[job.pair.case_id] = drawing
                file.unlink(missing_ok=True)  # of an earlier evaluation, of other masks
            else:
                atomic.write_bytes(file, drawing)
            progress.update(task, advance=1, description=f"drawn {job.pair.case_id}")
    return not_drawn


def _require_folder(attention: Path | None) -> None:
    if attention is not None and not attention.is_dir():
        raise UserError(
            attention,
            expected="the folder of the gates' coefficients",
            found="none",
            remedy="give the folder that ct-attn predict --attention wrote",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One case to be scored, all that another process needs to know of it."""

    pair: Pair
    reading: Reading
    options: ScoreOptions
    per_slice: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    case_id: str
    scores: list[CaseScore]
    slices: SliceCounts | None
    overlap: Overlap | None
    presumed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What there is to look at; ``not_drawn``: why a case that was chosen is not among it."""

    illustrations: Sequence[Illustration]
    not_drawn: dict[str, UserError]
    scans_known: bool
    pictures: Path | None


def _carry_out(job: _Job) -> _Result | UserError:
    """Errors are handed back, not raised, so that the other cases go on."""
    try:
        masks = read_pair(job.pair, job.reading)
        return _Result(
            case_id=job.pair.case_id,
            scores=_score(job.pair, masks, job.options),
            slices=_count(job.pair, masks) if job.per_slice else None,
            overlap=masks.overlap,
            presumed=masks.presumed,
        )
    except UserError as error:
        return error


def _score(pair: Pair, masks: PairedMasks, options: ScoreOptions) -> list[CaseScore]:
    scores = score_case(
        masks.truth,
        masks.predicted,
        case_id=pair.case_id,
        truth_scheme=masks.truth_scheme,
        predicted_scheme=masks.predicted_scheme,
        labelled_organs=pair.labelled_organs,
        options=options,
    )
    if not scores:
        raise UserError(
            pair.predicted,
            expected=f"organs that {pair.truth} labels ({', '.join(masks.truth_scheme.names)})",
            found=", ".join(masks.predicted_scheme.names),
            remedy="say what the codes mean with --truth-labels and --predicted-labels",
        )
    return scores


def _count(pair: Pair, masks: PairedMasks) -> SliceCounts:
    return count_slices(
        masks.truth,
        masks.predicted,
        case_id=pair.case_id,
        truth_scheme=masks.truth_scheme,
        predicted_scheme=masks.predicted_scheme,
        labelled_organs=pair.labelled_organs,
    )


def _write(
    output: Path,
    title: str,
    results: Sequence[_Result],
    failures: dict[str, UserError],
    options: ScoreOptions,
    shown: _Shown,
) -> Evaluation:
    scores = [score for result in results for score in result.scores]
    slices = [result.slices for result in results if result.slices is not None]
    summaries = summarize(scores)
    settings = ScoreSettings(
        surface_convention=options.surface,
        count_empty=options.count_empty,
        resampled=tuple(result.case_id for result in results if result.overlap is not None),
        failed=tuple(failures),
    )
    evaluation = Evaluation(
        scores=tuple(scores),
        summaries=tuple(summaries),
        scores_csv=output / "scores.csv",
        scores_json=output / "scores.json",
        report=output / "report.html",
        slices_csv=output / "slices.csv" if slices else None,
        pictures=shown.pictures,
        n_cases=len(results) + len(failures),
        failures=tuple(f"{case_id}: {error}" for case_id, error in (failures | shown.not_drawn).items()),
        resampled=settings.resampled,
        cut_off=tuple(sentence for result in results for sentence in _cut_off(result)),
        presumed=tuple(_presumed(results)),
    )
    write_scores_csv(evaluation.scores_csv, scores)
    write_scores_json(evaluation.scores_json, scores, summaries, settings)
    if slices:
        write_slices_csv(output / "slices.csv", slices, count_empty=options.count_empty)
    else:
        (output / "slices.csv").unlink(missing_ok=True)
    write_report(
        evaluation.report,
        title=title,
        facts={"Cases": str(len(results)), "Written by": f"ct_attn {__version__}"},
        settings=settings,
        scores=scores,
        summaries=summaries,
        illustrations=shown.illustrations,
        notes=[
            *_notes(settings, shown),
            *(f"{sentence}." for sentence in (*evaluation.presumed, *evaluation.cut_off)),
        ],
    )
    return evaluation


def _notes(settings: ScoreSettings, shown: _Shown) -> list[str]:
    """What a reader must know beside the numbers; case ids only, as paths don't belong into reports."""
    notes = []
    if settings.failed:
        names = ", ".join(settings.failed)
        notes.append(f"Could not be scored and in no number here ({len(settings.failed)}): {names}.")
    if settings.resampled:
        notes.append(
            "Predictions on another grid than the truth, brought onto it by nearest neighbour: "
            f"{', '.join(settings.resampled)}."
        )
    if shown.not_drawn:
        notes.append(f"Chosen to be shown, but could not be drawn: {', '.join(shown.not_drawn)}.")
    if not shown.scans_known:
        notes.append("No pictures: the scans are known only when --truth is a manifest.")
    return notes


def _cut_off(result: _Result) -> list[str]:
    """What of one case's organs lies where the other mask's grid doesn't reach."""
    overlap = result.overlap
    if overlap is None:
        return []
    shares = (
        (overlap.of_truth, "the true organs lie outside the prediction's grid, so count as missed"),
        (overlap.of_predicted, "the predicted organs lie outside the truth's grid, so don't count"),
    )
    return [f"{result.case_id}: {1 - share:.0%} of {what}" for share, what in shares if share < _LEAST_SHARED]


def _presumed(results: Sequence[_Result]) -> list[str]:
    """Whose codes nobody said, and what they were taken for."""
    usual = ", ".join(f"{code} {name}" for name, code in DISK_SCHEME.codes.items())
    sentences = []
    for mask, read in (("truth", f"as {usual}"), ("prediction", "like the truth's")):
        cases = [result.case_id for result in results if mask in result.presumed]
        if cases:
            which = "all cases" if len(cases) == len(results) else ", ".join(cases)
            sentences.append(f"Nothing says what the {mask}'s codes mean; they were read {read}: {which}")
    return sentences
