"""The commands that make whole tables: ``ct-attn summarize`` and ``ct-attn reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ct_attn.terminal import Device, progress_bar, stderr, stdout


def summarize(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of ct-attn train; one of --fold all holds several folds.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the table and the report.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The manifest the folds were trained on [default: the one --fold all was given].",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Collect the folds of a cross-validation into one table over all cases."""
    from ct_attn.summarize import summarize_runs
    from ct_attn.tables import fold_lines

    with progress_bar() as progress:
        made = summarize_runs(runs, output, progress=progress, manifest_path=data, device=device)
    for note in made.notes:
        stderr.print(f"note: {note}", markup=False)
    for line in fold_lines(made.rows):
        stdout.print(line, markup=False)
    stdout.print(f"table   {made.csv}\nnumbers {made.json}\nreport  {made.report}")


def reproduce(
    data: Annotated[Path, typer.Option(help="The manifest in Pancreas-CT's place, the target.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for runs, scores and tables.")
    ] = Path("runs/reproduce"),
    source: Annotated[
        Path | None, typer.Option(help="The manifest in CT-150's place; without it, BFT and AFT are not run.")
    ] = None,
    recipes: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the paper's recipes [default: those that come with ct-attn].", show_default=False
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only experiments of this name or pattern: ct82_scr_*.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field of every recipe: training.epochs=50.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, and stop.")] = False,
    device: Device = "auto",
) -> None:
    """Train and score what the paper did, and set our figures beside the published ones."""
    from ct_attn.reproduce import reproduce as run
    from ct_attn.reproduction.experiments import paper_recipes
    from ct_attn.reproduction.planning import NO_SOURCE, memory_gib, plan_reproduction
    from ct_attn.tables import reproduction_lines

    folder = recipes or paper_recipes()
    if dry_run:
        plan = plan_reproduction(
            data, output, recipes=folder, source=source, only=only or [], overrides=set_ or []
        )
        for job in plan.jobs:
            state = "done" if job.done else "to train"
            sides = "/".join(map(str, job.n_cases))
            stdout.print(
                f"{job.experiment.name:<28} {state:<8}  {sides:>10} cases  {job.steps:>7} steps  "
                f"about {memory_gib(job, device):.1f} GiB",
                markup=False,
            )
        for experiment in plan.experiments:
            reason = f"scored on {plan.cohort_of(experiment).data}" if plan.can_run(experiment) else NO_SOURCE
            stdout.print(f"{experiment.name:<28} {reason}", markup=False)
        return
    with progress_bar() as progress:
        made = run(
            data,
            output,
            progress=progress,
            recipes=folder,
            source=source,
            only=only or [],
            overrides=set_ or [],
            device=device,
        )
    for line in reproduction_lines(made.lines):
        stdout.print(line, markup=False)
    for note in made.notes:
        stdout.print(f"- {note}", markup=False)
    stdout.print(f"table   {made.csv}, {made.markdown}\nreport  {made.page}")
