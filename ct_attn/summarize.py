"""The step from the folds of a cross-validation to one table over all their cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.progress import Progress

from ct_attn import __version__
from ct_attn.checkpoint import load_checkpoint
from ct_attn.cross_validation import manifest_of, read_record
from ct_attn.errors import UserError
from ct_attn.manifest import file_digest, read_manifest
from ct_attn.metrics.scores import CaseScore, SurfaceConvention
from ct_attn.metrics.statistics import OrganSummary, summarize
from ct_attn.recipe import Recipe
from ct_attn.report.fold_table import FoldRow, fold_rows, write_folds_csv, write_folds_json
from ct_attn.report.page import write_report
from ct_attn.report.paper_table import left_out
from ct_attn.report.score_files import ScoreSettings
from ct_attn.scoring import score_model
from ct_attn.training.run_folder import RunFolder, unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """A trained fold: its folder, what it was trained with and on, and the fold held out."""

    path: Path
    recipe: Recipe
    manifest_digest: str
    fold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldSummary:
    """What was written, and the numbers in it. ``notes`` must be said aloud."""

    rows: tuple[FoldRow, ...]
    folds: tuple[int, ...]
    missing: tuple[int, ...]
    notes: tuple[str, ...]
    csv: Path
    json: Path
    report: Path


def summarize_runs(
    runs: Sequence[Path],
    output: Path,
    *,
    progress: Progress,
    manifest_path: Path | None = None,
    device: str = "auto",
    title: str = "Cross-validation",
) -> FoldSummary:
    """Collect the folds in ``runs`` into one table; write CSV, JSON and HTML into ``output``.

    A run is a folder of ``ct-attn train``, or of ``--fold all``, which holds several. Every
    fold's validation cases are predicted and scored once with its best model, into
    ``validation`` in its folder. ``manifest_path`` is known where the folds were trained
    with ``--fold all``. The table's means are over the cases of all folds.

    Raises :class:`UserError` when there is no fold, a fold twice or trained in part, and when
    folds differ in recipe or manifest. Nothing is predicted then.
    """
    folds = sorted(_find(runs), key=lambda run: run.fold)
    _require_alike(folds)
    manifest_path = _manifest_of(runs, folds, manifest_path)
    missing = tuple(sorted(set(read_manifest(manifest_path).folds) - {run.fold for run in folds}))
    scores: dict[int, list[CaseScore]] = {}
    failed: list[str] = []
    for run in folds:
        made = score_model(
            run.path / "model",
            manifest_path,
            run.path / "validation",
            progress=progress,
            fold=run.fold,
            device=device,
            title=f"{run.recipe.name}, fold {run.fold}",
        )
        scores[run.fold] = list(made.scores[SurfaceConvention.AREA])
        failed += made.failed
    notes = []
    if missing:
        notes.append(f"Folds that are missing, and their cases in no number: {', '.join(map(str, missing))}.")
    if failed:
        notes.append(f"Could not be scored and in no number: {', '.join(failed)}.")
    return _write(output, title, folds[0].recipe, scores, missing, notes)


def _find(runs: Sequence[Path]) -> list[FoldRun]:
    found = []
    for run in runs:
        if (run / "model").is_dir():
            found.append(_require_finished(_read_run(run)))
            continue
        inside = sorted(
            folder
            for folder in run.glob("fold_*")
            if (folder / "model").is_dir() and folder.name[5:].isdecimal()
        )
        record = read_record(run)
        finished = [folder for folder in inside if int(folder.name[5:]) in record.get("finished", [])]
        if not (finished if record else inside):
            raise UserError(
                run,
                expected="a finished run of ct-attn train, or folders fold_0, fold_1, ... with them",
                found="none" if run.exists() else "no such folder",
                remedy="train with --fold all, or go on with --resume",
            )
        if record:
            found += [_read_run(folder) for folder in finished]
        else:
            found += [_require_finished(_read_run(folder)) for folder in inside]
    return found


def _read_run(path: Path) -> FoldRun:
    checkpoint = load_checkpoint(path / "model")
    provenance = checkpoint.provenance
    if not {"fold", "manifest_digest"} <= provenance.keys():
        raise UserError(
            path / "model", expected="a model that ct-attn train wrote", found="one without a fold",
            remedy="give the folder of a training run",
        )  # fmt: skip
    return FoldRun(
        path=path,
        recipe=checkpoint.recipe,
        manifest_digest=str(provenance["manifest_digest"]),
        fold=int(provenance["fold"]),
    )


def _require_finished(run: FoldRun) -> FoldRun:
    """``run``, which nobody else says has come to its end."""
    missing = unfinished(RunFolder(path=run.path), run.recipe)
    if missing is not None:
        raise UserError(
            run.path, expected="a training that has come to its end", found=missing,
            remedy="go on with --resume, or leave it out",
        )  # fmt: skip
    return run


def _require_alike(runs: Sequence[FoldRun]) -> None:
    first, seen = runs[0], {runs[0].fold: runs[0].path}
    for run in runs[1:]:
        if run.fold in seen:
            raise UserError(
                run.path, expected="every fold once", found=f"fold {run.fold}, as in {seen[run.fold]}",
                remedy="leave one of both out",
            )  # fmt: skip
        seen[run.fold] = run.path
        changed = [
            name
            for name, same in (
                ("manifest", run.manifest_digest == first.manifest_digest),
                ("recipe", run.recipe == first.recipe),
            )
            if not same
        ]
        if changed:
            raise UserError(
                run.path, expected=f"the same recipe and manifest as {first.path}",
                found=f"another {' and '.join(changed)}", remedy="summarize folds of one training",
            )  # fmt: skip


def _manifest_of(runs: Sequence[Path], folds: Sequence[FoldRun], given: Path | None) -> Path:
    """The manifest all folds were trained on. Raises :class:`UserError` when it is unknown or another."""
    path = given or next(filter(None, map(manifest_of, runs)), None)
    if path is None:
        raise UserError(
            "ct-attn summarize", expected="the manifest the folds were trained on",
            found="runs that don't say where it is", remedy="name it with --data",
        )  # fmt: skip
    if not path.is_file() or file_digest(path) != folds[0].manifest_digest:
        raise UserError(
            path, expected="the manifest the folds were trained on",
            found="another" if path.is_file() else "no such file", remedy="name it with --data",
        )  # fmt: skip
    return path


def _write(
    output: Path,
    title: str,
    recipe: Recipe,
    scores: Mapping[int, list[CaseScore]],
    missing: tuple[int, ...],
    notes: Sequence[str],
) -> FoldSummary:
    pooled = [score for of_fold in scores.values() for score in of_fold]
    summaries = summarize(pooled)
    by_fold = {fold: summarize(of_fold) for fold, of_fold in scores.items()}
    made = FoldSummary(
        rows=tuple(fold_rows(summaries, by_fold)),
        folds=tuple(scores),
        missing=missing,
        notes=tuple(notes),
        csv=output / "summary.csv",
        json=output / "summary.json",
        report=output / "report.html",
    )
    write_folds_csv(made.csv, made.rows, made.folds)
    write_folds_json(
        made.json,
        {"recipe": recipe.model_dump(mode="json"), "missing_folds": list(missing), "notes": list(notes)},
        rows=made.rows,
        summaries=[asdict(summary) for summary in summaries],
        scores=scores,
    )
    write_report(
        made.report,
        title=f"{title}: {recipe.name}",
        facts=_facts(pooled, by_fold, scores),
        settings=ScoreSettings(),
        scores=pooled,
        summaries=summaries,
        notes=[*notes, "Every case was predicted by the one model that did not train on it."],
    )
    return made


def _facts(
    pooled: Sequence[CaseScore],
    by_fold: Mapping[int, Sequence[OrganSummary]],
    scores: Mapping[int, Sequence[CaseScore]],
) -> dict[str, str]:
    facts = {"Cases": str(len({score.case_id for score in pooled}))}
    for fold, summaries in by_fold.items():
        cases = len({score.case_id for score in scores[fold]})
        facts[f"Fold {fold}"] = (
            f"{cases} cases; mean DSC {_means(summaries, 'dsc', 3)}; "
            f"mean S2S in mm {_means(summaries, 's2s_mm', 2)}"
        )
    return {**facts, "Written by": f"ct_attn {__version__}"}


def _means(summaries: Sequence[OrganSummary], measure: str, digits: int) -> str:
    """The mean of every organ that has one, and how many cases it leaves out."""
    words = []
    for summary in summaries:
        numbers = getattr(summary, measure)
        if numbers.mean is not None:
            out = left_out(summary, numbers)
            words.append(f"{summary.organ} {numbers.mean:.{digits}f}" + (f" ({out} left out)" if out else ""))
    return ", ".join(words) or "of none"
