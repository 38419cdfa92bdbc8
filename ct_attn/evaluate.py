"""The step from true and predicted masks to scores and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from ct_attn import __version__
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, LabelScheme, comparable_structures, recode
from ct_attn.metrics.scores import CaseScore, score_case
from ct_attn.metrics.statistics import OrganSummary, summarize
from ct_attn.pairing import Pair, find_pairs
from ct_attn.report.figures import case_picture
from ct_attn.report.page import CasePicture, write_report
from ct_attn.report.score_files import write_scores_csv, write_scores_json
from ct_attn.scan_io import nifti
from ct_attn.scan_io.nifti import require_known_codes
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Mask, require_same_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was written, and the numbers in it."""

    scores: tuple[CaseScore, ...]
    summaries: tuple[OrganSummary, ...]
    scores_csv: Path
    scores_json: Path
    report: Path


def evaluate(
    truth: Path,
    predicted: Path,
    output: Path,
    *,
    progress: Progress,
    fold: int | None = None,
    truth_scheme: LabelScheme | None = None,
    predicted_scheme: LabelScheme | None = None,
    title: str = "Evaluation",
    max_pictures: int = 12,
) -> Evaluation:
    """Score the masks in ``predicted`` against ``truth``; write CSV, JSON and HTML into ``output``.

    ``truth`` is a mask, a folder of masks or a manifest (its test cases, or the cases
    of ``fold``); ``predicted`` is a mask or a folder of masks named like the cases.
    Codes mean what the files say, unless the schemes are given; a prediction that
    doesn't say is read in the truth's codes. Raises :class:`UserError` for missing,
    extra or unreadable files, unknown codes, and masks on different grids; nothing is
    written then.
    """
    pairs = find_pairs(truth, predicted, fold=fold)
    task = progress.add_task("evaluating", total=len(pairs))
    scores: list[CaseScore] = []
    pictures: list[CasePicture] = []
    for pair in pairs:
        progress.update(task, description=f"evaluating {pair.case_id}")
        masks = _read_masks(pair, truth_scheme, predicted_scheme)
        scores += _score(pair, masks)
        if pair.image is not None and len(pictures) < max_pictures:
            pictures.append(_picture(pair, pair.image, masks))
        progress.advance(task)
    return _write(output, title, scores, pictures)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Masks:
    """Both masks of a pair and what their codes mean."""

    truth: Mask
    predicted: Mask
    truth_scheme: LabelScheme
    predicted_scheme: LabelScheme


def _read_masks(pair: Pair, truth_scheme: LabelScheme | None, predicted_scheme: LabelScheme | None) -> _Masks:
    truth, stated = nifti.read_mask(pair.truth)
    truth_scheme = truth_scheme or stated or DISK_SCHEME
    predicted, stated = nifti.read_mask(pair.predicted)
    predicted_scheme = predicted_scheme or stated or truth_scheme
    require_same_grid(predicted.grid, truth.grid, subject=str(pair.predicted), than=str(pair.truth))
    require_known_codes(truth, truth_scheme, pair.truth)
    require_known_codes(predicted, predicted_scheme, pair.predicted)
    return _Masks(
        truth=truth, predicted=predicted, truth_scheme=truth_scheme, predicted_scheme=predicted_scheme
    )


def _score(pair: Pair, masks: _Masks) -> list[CaseScore]:
    scores = score_case(
        masks.truth,
        masks.predicted,
        case_id=pair.case_id,
        truth_scheme=masks.truth_scheme,
        predicted_scheme=masks.predicted_scheme,
        labelled_organs=pair.labelled_organs,
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


def _write(output: Path, title: str, scores: list[CaseScore], pictures: list[CasePicture]) -> Evaluation:
    summaries = summarize(scores)
    evaluation = Evaluation(
        scores=tuple(scores),
        summaries=tuple(summaries),
        scores_csv=output / "scores.csv",
        scores_json=output / "scores.json",
        report=output / "report.html",
    )
    write_scores_csv(evaluation.scores_csv, scores)
    write_scores_json(evaluation.scores_json, scores, summaries)
    cases = len({score.case_id for score in scores})
    write_report(
        evaluation.report,
        title=title,
        facts={"Cases": str(cases), "Written by": f"ct_attn {__version__}"},
        scores=scores,
        summaries=summaries,
        pictures=pictures,
        notes=[] if pictures else ["No pictures: the scans are known only when --truth is a manifest."],
    )
    return evaluation
