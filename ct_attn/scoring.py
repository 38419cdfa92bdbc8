"""The cases of a manifest, predicted with a model and scored: once, and restartable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ct_attn import __version__, atomic
from ct_attn.evaluate import evaluate
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.manifest import Case, choose_fold, file_digest, read_manifest
from ct_attn.metrics.scores import CaseScore, ScoreOptions, SurfaceConvention
from ct_attn.model_file import FILE_NAME
from ct_attn.report.score_files import read_scores
from ct_attn.scan_io import nifti
from ct_attn.scan_io.scan import read_scan
from ct_attn.training.cases import locate

#: The surfaces a model's distances are measured by, and the folder of each below the output.
CONVENTIONS = {SurfaceConvention.AREA: "", SurfaceConvention.CONTOUR: "contour"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScores:
    """A model's scores by convention of the surface, and how long its predictions took.

    ``seconds``: by case, then by stage (``resampling``, ``network``, ``restoring``).
    ``failed``: the cases that could not be scored and are in no number.
    """

    scores: Mapping[SurfaceConvention, Sequence[CaseScore]]
    seconds: Mapping[str, Mapping[str, float]]
    failed: tuple[str, ...] = ()


def score_model(
    model: Path,
    manifest_path: Path,
    output: Path,
    *,
    progress: Progress,
    fold: int | None = None,
    conventions: Sequence[SurfaceConvention] = (SurfaceConvention.AREA,),
    device: str = "auto",
    title: str = "Evaluation",
) -> ModelScores:
    """Predict and score the test cases of ``manifest_path``, or those of ``fold``.

    Writes into ``output`` the folder ``masks``, ``times.json``, what
    :func:`~ct_attn.evaluate.evaluate` writes (of the contour convention in ``contour``)
    and, last, ``done.json``. With that record, of the same model and manifest, nothing is
    computed again; without, masks that are there are kept. Raises :class:`UserError` when
    model, manifest or a file of a case cannot be used.
    """
    job = _job(model, manifest_path, fold)
    places = {convention: output / CONVENTIONS[convention] for convention in conventions}
    done = _read(output / "done.json")
    finished = (
        done.get("conventions", []) if {**done, "conventions": None} == {**job, "conventions": None} else []
    )
    if not set(conventions) <= set(finished):
        manifest = read_manifest(manifest_path)
        cases = manifest.test if fold is None else choose_fold(manifest, fold, path=manifest_path)[1]
        _predict(model, cases, manifest_path, output, job, progress, device)
        for convention, folder in places.items():
            evaluate(
                manifest_path,
                output / "masks",
                folder,
                progress=progress,
                fold=fold,
                options=ScoreOptions(surface=convention),
                title=title,
            )
        _write(output / "done.json", {**job, "conventions": [str(convention) for convention in conventions]})
    read = {convention: read_scores(folder / "scores.json") for convention, folder in places.items()}
    return ModelScores(
        scores={convention: scores for convention, (scores, _) in read.items()},
        seconds=_read(output / "times.json"),
        failed=tuple(sorted({case for _, settings in read.values() if settings for case in settings.failed})),
    )


def _job(model: Path, manifest_path: Path, fold: int | None) -> dict[str, Any]:
    """What the masks and scores follow from."""
    return {
        "version": __version__,
        "model": file_digest(model / FILE_NAME),
        "manifest_digest": file_digest(manifest_path),
        "fold": fold,
    }


def _predict(
    model: Path,
    cases: Sequence[Case],
    manifest_path: Path,
    output: Path,
    job: Mapping[str, Any],
    progress: Progress,
    device: str,
) -> None:
    """Write the masks that ``output`` lacks; those of another job make room first."""
    files = locate(cases, manifest_path)
    masks, times = output / "masks", output / "times.json"
    if _read(output / "started.json") != job:
        (output / "done.json").unlink(missing_ok=True)
        times.unlink(missing_ok=True)
        for mask in masks.glob("*.nii.gz"):
            mask.unlink()
        _write(output / "started.json", job)
    task = progress.add_task("predicting", total=len(files))
    predictor = None
    for case in files:
        target = masks / f"{case.case_id}.nii.gz"
        if not target.is_file():
            predictor = predictor or Predictor.load(model, InferenceOptions(device=device))
            volume = read_scan(case.image)
            made = predictor.run(volume)
            frame = nifti.frame_of(case.image, volume.grid)
            _write(times, {**_read(times), case.case_id: dict(made.seconds)})
            nifti.write_mask(made.mask, target, scheme=predictor.scheme, frame=frame)
        progress.update(task, advance=1, description=f"predicted {case.case_id}")


def _read(path: Path) -> dict[str, Any]:
    """The JSON in ``path``; empty where there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write(path: Path, record: Mapping[str, Any]) -> None:
    atomic.write_text(path, json.dumps(record, indent=1) + "\n")
