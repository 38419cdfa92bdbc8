"""The step that learns on validation cases what belongs beside a model: filters, worth of confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.progress import Progress

from ct_attn import __version__
from ct_attn.errors import UserError
from ct_attn.inference.options import DEFAULTS, InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.labels import LabelScheme
from ct_attn.manifest import Case, Manifest, choose_fold, file_digest, read_manifest
from ct_attn.prediction.calibration import PartOverlaps, calibrate_organ, choose_filter, part_overlaps
from ct_attn.prediction.models import ModelFacts, read_model
from ct_attn.prediction.postprocessing import Postprocessing, write_postprocessing
from ct_attn.prediction.ranges import TrainingRanges, ranges_of, scan_facts
from ct_attn.report.calibration_page import BinRow, OrganRow, write_calibration_report
from ct_attn.scan_io import nifti
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import require_same_grid

REPORT_NAME = "calibration.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What was learnt, the file it is kept in, and the report on it."""

    learnt: Postprocessing
    path: Path
    report: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfOrgan:
    """What the validation cases say of one organ; ``confidence`` is None where it was not found."""

    overlaps: list[PartOverlaps] = field(default_factory=list)
    confidence: list[float | None] = field(default_factory=list)


def calibrate(
    model: Path,
    manifest_path: Path,
    *,
    progress: Progress,
    fold: int | None = None,
    inference: InferenceOptions = DEFAULTS,
) -> Calibrated:
    """Predict the validation cases of ``fold`` and keep beside ``model`` what they teach.

    ``fold``: by default the one that was held out when the model was trained. Predictions
    are made with ``inference``; a confidence is worth what it is there only with the same
    options. Writes ``postprocessing.json`` and ``calibration.html`` into the model's folder.
    Raises :class:`UserError` when model or manifest can't be used, or the model has been
    trained on the cases of ``fold``.
    """
    facts = read_model(model, postprocessing=False)
    manifest = read_manifest(manifest_path)
    fold = _held_out(facts, manifest_path, fold)
    training, validation = choose_fold(manifest, fold, path=manifest_path)
    task = progress.add_task("looking at training scans", total=len(training) + len(validation))
    known = []
    for case in training:
        known.append(scan_facts(read_scan(manifest_path.parent / case.image)))
        progress.advance(task)
    predictor = Predictor.load(model, inference)
    organs = {name: _OfOrgan() for name in facts.scheme.names}
    for case in validation:
        progress.update(task, description=f"predicting {case.case_id}")
        _learn_from(case, manifest, manifest_path, predictor, facts.scheme, organs)
        progress.advance(task)
    learnt = _conclude(organs, facts, manifest_path, fold, len(validation), ranges_of(known))
    path = write_postprocessing(learnt, facts.folder)
    report = facts.folder / REPORT_NAME
    write_calibration_report(
        report, title=f"Calibration of {facts.used.recipe}", facts=_facts(learnt), organs=_rows(learnt)
    )
    return Calibrated(learnt=learnt, path=path, report=report)


def _held_out(facts: ModelFacts, manifest_path: Path, fold: int | None) -> int:
    """The fold to validate on: what is learnt on cases of the training would flatter the model."""
    own = facts.fold if facts.manifest_digest == file_digest(manifest_path) else None
    if fold is None and own is None:
        raise UserError(
            facts.folder,
            expected="a model trained on this manifest, or --fold",
            found="one trained on another",
            remedy="name the fold whose cases the model has not seen",
        )
    if fold is not None and own is not None and fold != own:
        raise UserError(
            f"--fold {fold}",
            expected=f"fold {own}, which was held out of the model's training",
            found="cases it was trained on",
            remedy="leave --fold away",
        )
    return own if fold is None and own is not None else int(fold or 0)


def _learn_from(
    case: Case,
    manifest: Manifest,
    manifest_path: Path,
    predictor: Predictor,
    scheme: LabelScheme,
    organs: dict[str, _OfOrgan],
) -> None:
    """Predict one case and add what it says of each organ that it labels."""
    image, label = manifest_path.parent / case.image, manifest_path.parent / case.label
    volume, (truth, _) = read_scan(image), nifti.read_mask(label)
    require_same_grid(truth.grid, volume.grid, subject=str(label), than=str(image))
    prediction = predictor.run(volume)
    for structure in scheme.structures:
        if not set(structure.organs) <= set(case.labelled_organs):
            continue
        codes = [
            code.code for code in manifest.label_scheme.structures if set(code.organs) & set(structure.organs)
        ]
        confidence = prediction.confidence.get(structure.name, math.nan)
        organs[structure.name].confidence.append(None if math.isnan(confidence) else confidence)
        organs[structure.name].overlaps.append(
            part_overlaps(
                np.isin(truth.labels, codes),
                prediction.mask.labels == structure.code,
                n_largest=len(structure.organs),
                voxel_mm3=volume.grid.voxel_volume_mm3,
            )
        )


def _conclude(
    organs: dict[str, _OfOrgan],
    facts: ModelFacts,
    manifest_path: Path,
    fold: int,
    n_cases: int,
    training: TrainingRanges,
) -> Postprocessing:
    filters = {name: choose_filter(found.overlaps) for name, found in organs.items()}
    calibration = {
        name: calibrate_organ(
            [
                (confidence, overlaps.dsc(filters[name].filter))
                for confidence, overlaps in zip(found.confidence, found.overlaps, strict=True)
                if confidence is not None
            ]
        )
        for name, found in organs.items()
    }
    return Postprocessing(
        model_digest=facts.used.digest,
        manifest_digest=file_digest(manifest_path),
        fold=fold,
        n_cases=n_cases,
        version=__version__,
        filters=filters,
        calibration=calibration,
        training=training,
    )


def _facts(learnt: Postprocessing) -> dict[str, str]:
    return {
        "Model": learnt.model_digest,
        "Manifest": f"{learnt.manifest_digest}, fold {learnt.fold}",
        "Validation cases": str(learnt.n_cases),
        "Training scans looked at": str(learnt.training.n_cases),
        "Written by": f"ct_attn {learnt.version}",
    }


def _rows(learnt: Postprocessing) -> list[OrganRow]:
    return [
        OrganRow(
            organ=organ,
            filter=choice.filter.describe(),
            n_cases=choice.n_cases,
            dsc_without=choice.dsc_without,
            dsc_with=choice.dsc_with,
            rank_correlation=learnt.calibration[organ].rank_correlation,
            points=learnt.calibration[organ].points,
            bins=[
                BinRow(low=one.low, high=one.high, n_cases=one.n_cases, mean_dsc=one.mean_dsc)
                for one in learnt.calibration[organ].bins
            ],
        )
        for organ, choice in learnt.filters.items()
    ]
