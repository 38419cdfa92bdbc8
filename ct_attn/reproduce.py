"""The paper's tables again, on the cohorts one has: a chain of trainings and scorings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.progress import Progress

from ct_attn import __version__, atomic
from ct_attn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ct_attn.errors import UserError
from ct_attn.manifest import file_digest, read_manifest, write_manifest
from ct_attn.metrics.scores import SurfaceConvention
from ct_attn.model_file import FILE_NAME
from ct_attn.network.build import build_network
from ct_attn.network.narrowing import keep_classes
from ct_attn.published import NOT_LEGIBLE, published_figures
from ct_attn.recipe import Recipe
from ct_attn.report.reproduction_table import Line, ReproducedFigure, make_lines, markdown, write_page
from ct_attn.report.score_files import write_rows_csv
from ct_attn.reproduction.experiments import Experiment
from ct_attn.reproduction.planning import (
    NO_SOURCE,
    Cohort,
    Job,
    Plan,
    is_done,
    plan_reproduction,
    record_of,
    run_folder,
)
from ct_attn.reproduction.table import Result, make_rows
from ct_attn.scoring import score_model
from ct_attn.train import train
from ct_attn.training.start import Start

TITLE = "Oktay et al. 2018, reproduced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What was written, and the figures in it."""

    figures: tuple[ReproducedFigure, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    csv: Path
    markdown: Path
    page: Path


def reproduce(
    target: Path,
    output: Path,
    *,
    progress: Progress,
    recipes: Path,
    source: Path | None = None,
    only: Sequence[str] = (),
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> Reproduction:
    """Train and score the paper's experiments and set our figures beside the published ones.

    ``target`` is the manifest in Pancreas-CT's place: its own test cases are kept, and where
    it has none it is divided like 61/21. ``source`` is the one in CT-150's place, all of its
    cases divided like 120/30 and 30/120; without it, what needs it is listed as not run.
    BFT tests the source's model on the target as it is; AFT fine-tunes it there with the
    logits of spleen and kidney taken out; SCR trains there from scratch. ``recipes`` is the
    folder with the recipes by the experiments' names, ``overrides`` change fields in all.

    Writes into ``output``: ``data`` (the manifests), ``runs``, ``scores``, and after every
    experiment ``reproduce.csv``, ``.md`` and ``.html``. Each training and scoring is done
    once; an interrupted one goes on. Raises :class:`UserError` when a manifest or recipe
    cannot be used, source and target share a scan, or ``output`` holds another reproduction.
    """
    plan = plan_reproduction(target, output, recipes=recipes, source=source, only=only, overrides=overrides)
    for cohort in plan.cohorts.values():
        _keep(cohort)
    results = {
        one: Result(
            experiment=one,
            data=plan.cohort_of(one).data if plan.can_run(one) else "",
            reason="not run yet" if plan.can_run(one) else NO_SOURCE,
        )
        for one in plan.experiments
    }
    jobs = {job.experiment.name: job for job in plan.jobs}
    for job in plan.jobs:
        _train(job, output, progress, device)
        for one in plan.experiments:
            if plan.can_run(one) and (one.model_of or one.name) == job.experiment.name:
                results[one] = _score(one, jobs, plan.cohort_of(one), output, progress, device)
                _write(output, plan, list(results.values()))
    return _write(output, plan, list(results.values()))


def _keep(cohort: Cohort) -> None:
    """Write the cohort's manifest, or make sure that it is the one that is there."""
    if not cohort.path.is_file():
        write_manifest(cohort.manifest, cohort.path)
    elif read_manifest(cohort.path) != cohort.manifest:
        raise UserError(
            cohort.path, expected="the manifest this reproduction was started with", found="another",
            remedy="choose another -o",
        )  # fmt: skip


def _train(job: Job, output: Path, progress: Progress, device: str) -> None:
    folder = run_folder(output, job.experiment)
    if is_done(output, job):
        return
    progress.console.print(f"training {job.experiment.name}", markup=False)
    start = Start()
    if job.experiment.starts_from is not None:
        source = output / "runs" / job.experiment.starts_from / "model"
        start = Start(model=narrow(source, output / "runs" / f"{job.experiment.name}_start", job.recipe))
    train(
        job.recipe, job.cohort.path, folder, progress=progress, fold=job.cohort.fold,
        start=start, resume=folder.exists(), device=device,
    )  # fmt: skip
    atomic.write_text(folder.with_suffix(".json"), json.dumps(record_of(job), indent=1) + "\n")


def narrow(model: Path, folder: Path, recipe: Recipe) -> Path:
    """The model in ``model`` with the targets of ``recipe`` only, written into ``folder``, once.

    Its logits of these targets and of background stay; the others are out of the softmax.
    """
    digest = file_digest(model / FILE_NAME)
    if (folder / FILE_NAME).is_file() and load_checkpoint(folder).provenance["narrowed_from"] == digest:
        return folder
    whole = load_checkpoint(model)
    codes = whole.recipe.label_scheme.codes
    save_checkpoint(
        Checkpoint(
            weights=keep_classes(whole.weights, [0, *(codes[name] for name in recipe.targets)]),
            recipe=whole.recipe.model_copy(update={"targets": dict(recipe.targets)}),
            provenance={**whole.provenance, "narrowed_from": digest},
        ),
        folder,
    )
    return folder


def _score(
    one: Experiment, jobs: Mapping[str, Job], cohort: Cohort, output: Path, progress: Progress, device: str
) -> Result:
    job = jobs[one.model_of or one.name]
    made = score_model(
        run_folder(output, job.experiment) / "model",
        cohort.path,
        output / "scores" / one.name,
        progress=progress,
        conventions=(SurfaceConvention.AREA, SurfaceConvention.CONTOUR),
        device=device,
        title=one.name,
    )
    network = build_network(job.recipe.network, in_channels=1, n_classes=job.recipe.n_classes)
    seconds = [of_case["network"] for of_case in made.seconds.values()]
    return Result(
        experiment=one,
        data=cohort.data,
        scores=made.scores,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        seconds=fmean(seconds) if seconds else None,
        failed=made.failed,
    )


def _write(output: Path, plan: Plan, results: Sequence[Result]) -> Reproduction:
    figures = make_rows(published_figures(), results)
    lines, notes = make_lines(figures), _notes(plan)
    made = Reproduction(
        figures=tuple(figures),
        lines=tuple(lines),
        notes=tuple(notes),
        csv=output / "reproduce.csv",
        markdown=output / "reproduce.md",
        page=output / "reproduce.html",
    )
    write_rows_csv(made.csv, figures, ReproducedFigure)
    atomic.write_text(made.markdown, f"# {TITLE}\n\n{markdown(lines, notes)}")
    write_page(
        made.page, title=TITLE, facts={"Written by": f"ct_attn {__version__}"}, notes=notes, lines=lines
    )
    return made


def _notes(plan: Plan) -> list[str]:
    """What a reader must know beside the figures."""
    source = plan.cohorts.get("120/30")
    notes = [
        f"CT-82 (the target): ours come from {plan.target}",
        "CT-150 (the source) is not public. "
        + (f"Ours come from {source.data}" if source else "No cohort was named in its place (--source)."),
    ]
    for job in plan.jobs:
        training = job.recipe.training
        n_training, n_validation, n_test = job.n_cases
        notes.append(
            f"{job.experiment.name}: {training.epochs} epochs of {training.batches_per_epoch} batches of "
            f"{training.batch_size} patches of {' x '.join(map(str, training.patch_size))} voxels; "
            f"{n_training} cases to train on, {n_validation} to choose the epoch, {n_test} to test on."
        )
    return [
        *notes,
        NOT_LEGIBLE,
        "S2S: first between surfaces in three dimensions, area-weighted, both directions pooled; beside it "
        "between the contours of each axial slice, as the authors' code measures.",
        "Inference: the paper's is one pass of its network on its GPU; ours the network's time for a whole "
        "scan, all windows, on the machine at hand.",
    ]
