"""The step from true and predicted masks to scores and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.progress import Progress

from ct_attn import __version__
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, LabelScheme, comparable_structures, recode
from ct_attn.metrics.scores import CaseScore, ScoreOptions, score_case
from ct_attn.metrics.statistics import OrganSummary, summarize
from ct_attn.pairing import Pair, find_pairs
from ct_attn.regrid import nearest_on
from ct_attn.report.figures import case_picture
from ct_attn.report.page import CasePicture, write_report
from ct_attn.report.score_files import ScoreSettings, write_scores_csv, write_scores_json
from ct_attn.scan_io import nifti
from ct_attn.scan_io.nifti import require_known_codes
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Mask, require_same_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was written, and the numbers in it.

    ``failures``: why a case could not be scored. ``resampled``: the cases whose
    prediction was brought onto the truth's grid.
    """

    scores: tuple[CaseScore, ...]
    summaries: tuple[OrganSummary, ...]
    scores_csv: Path
    scores_json: Path
    report: Path
    failures: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How masks are read: what their codes mean, and whether their grids may differ.

    ``resample``: a prediction on another grid is brought onto the truth's by nearest
    neighbour, where it is refused otherwise.
    """

    truth_scheme: LabelScheme | None = None
    predicted_scheme: LabelScheme | None = None
    resample: bool = False


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
    max_pictures: int = 12,
    workers: int = 1,
) -> Evaluation:
    """Score the masks in ``predicted`` against ``truth``; write CSV, JSON and HTML into ``output``.

    ``truth`` is a mask, a folder of masks or a manifest (its test cases, or the cases
    of ``fold``); ``predicted`` is a mask or a folder of masks named like the cases.
    Codes mean what the files say, unless the schemes are given; a prediction that
    doesn't say is read in the truth's codes. ``workers`` processes share the cases and
    change no byte.

    Raises :class:`UserError` for missing or extra files before anything is read. A case
    whose files cannot be used (torn, unknown codes, different grids) does not stop the
    others; it is named in ``failures``. Where all cases fail, the first one's error is
    raised and nothing is written.
    """
    pairs = find_pairs(truth, predicted, fold=fold)
    reading, options = reading or Reading(), options or ScoreOptions()
    drawn = {pair.case_id for pair in [pair for pair in pairs if pair.image is not None][:max_pictures]}
    jobs = [_Job(pair=pair, reading=reading, options=options, draw=pair.case_id in drawn) for pair in pairs]
    task = progress.add_task("evaluating", total=len(jobs))
    results, failures = [], {}
    with _in_order(jobs, workers) as outcomes:
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, UserError):
                failures[job.pair.case_id] = outcome
            else:
                results.append(outcome)
            progress.update(task, advance=1, description=f"evaluated {job.pair.case_id}")
    if not results:
        raise next(iter(failures.values()))
    return _write(output, title, results, failures, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One case to be scored, all that another process needs to know of it."""

    pair: Pair
    reading: Reading
    options: ScoreOptions
    draw: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    case_id: str
    scores: list[CaseScore]
    picture: CasePicture | None
    resampled: bool


@contextmanager
def _in_order(jobs: Sequence[_Job], workers: int) -> Iterator[Iterator[_Result | UserError]]:
    """The outcomes of ``jobs`` in their order, by this process or by ``workers`` others."""
    if min(workers, len(jobs)) < 2:
        yield map(_carry_out, jobs)
        return
    # Spawned, not forked: a forked child of a process that has used torch can hang.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        try:
            yield pool.map(_carry_out, jobs)
        except BrokenProcessPool as error:
            raise UserError(
                "ct-attn evaluate",
                expected=f"{workers} workers to the end",
                found="one that was killed, as happens when memory runs out",
                remedy="give fewer --workers",
            ) from error


def _carry_out(job: _Job) -> _Result | UserError:
    """Errors are handed back, not raised, so that the other cases go on."""
    try:
        masks = _read_masks(job.pair, job.reading)
        return _Result(
            case_id=job.pair.case_id,
            scores=_score(job.pair, masks, job.options),
            picture=_picture(job.pair, job.pair.image, masks) if job.draw and job.pair.image else None,
            resampled=masks.resampled,
        )
    except UserError as error:
        return error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Masks:
    """Both masks of a pair on one grid, and what their codes mean."""

    truth: Mask
    predicted: Mask
    truth_scheme: LabelScheme
    predicted_scheme: LabelScheme
    resampled: bool


def _read_masks(pair: Pair, reading: Reading) -> _Masks:
    truth, stated = nifti.read_mask(pair.truth)
    truth_scheme = reading.truth_scheme or stated or DISK_SCHEME
    predicted, stated = nifti.read_mask(pair.predicted)
    predicted_scheme = reading.predicted_scheme or stated or truth_scheme
    resample = reading.resample and not predicted.grid.is_same_as(truth.grid)
    if resample:
        predicted = nearest_on(predicted, truth.grid)
    require_same_grid(predicted.grid, truth.grid, subject=str(pair.predicted), than=str(pair.truth))
    require_known_codes(truth, truth_scheme, pair.truth)
    require_known_codes(predicted, predicted_scheme, pair.predicted)
    return _Masks(
        truth=truth,
        predicted=predicted,
        truth_scheme=truth_scheme,
        predicted_scheme=predicted_scheme,
        resampled=resample,
    )


def _score(pair: Pair, masks: _Masks, options: ScoreOptions) -> list[CaseScore]:
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


def _picture(pair: Pair, image: Path, masks: _Masks) -> CasePicture:
    volume = read_scan(image)
    require_same_grid(volume.grid, masks.truth.grid, subject=str(image), than=str(pair.truth))
    shared = comparable_structures(masks.truth_scheme, masks.predicted_scheme)
    truth, predicted = (
        Mask(labels=recode(mask.labels, scheme, shared), grid=mask.grid)
        for mask, scheme in ((masks.truth, masks.truth_scheme), (masks.predicted, masks.predicted_scheme))
    )
    return CasePicture(
        case_id=pair.case_id,
        png=case_picture(volume, truth, predicted, scheme=shared),
        alt=f"Axial, coronal and sagittal slices of {pair.case_id} with contours of truth and prediction",
    )


def _write(
    output: Path,
    title: str,
    results: Sequence[_Result],
    failures: dict[str, UserError],
    options: ScoreOptions,
) -> Evaluation:
    scores = [score for result in results for score in result.scores]
    summaries = summarize(scores)
    settings = ScoreSettings(
        surface_convention=options.surface,
        count_empty=options.count_empty,
        resampled=tuple(result.case_id for result in results if result.resampled),
        failed=tuple(failures),
    )
    evaluation = Evaluation(
        scores=tuple(scores),
        summaries=tuple(summaries),
        scores_csv=output / "scores.csv",
        scores_json=output / "scores.json",
        report=output / "report.html",
        failures=tuple(f"{case_id}: {error}" for case_id, error in failures.items()),
        resampled=settings.resampled,
    )
    write_scores_csv(evaluation.scores_csv, scores)
    write_scores_json(evaluation.scores_json, scores, summaries, settings)
    pictures = [result.picture for result in results if result.picture is not None]
    write_report(
        evaluation.report,
        title=title,
        facts={"Cases": str(len(results)), "Written by": f"ct_attn {__version__}"},
        settings=settings,
        scores=scores,
        summaries=summaries,
        pictures=pictures,
        notes=_notes(settings, has_pictures=bool(pictures)),
    )
    return evaluation


def _notes(settings: ScoreSettings, *, has_pictures: bool) -> list[str]:
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
    if not has_pictures:
        notes.append("No pictures: the scans are known only when --truth is a manifest.")
    return notes
