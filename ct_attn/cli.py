"""The command line: parse, call a step or a chain, print what came of it. Nothing else.

What a command needs is imported when it runs, so that ``ct-attn --help`` answers at once.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from ct_attn import __version__
from ct_attn.cli_data import check, prepare_app
from ct_attn.cli_paper import reproduce, summarize
from ct_attn.cli_predict import calibrate, predict, status
from ct_attn.cli_scores import compare, evaluate
from ct_attn.cli_train import plan, train
from ct_attn.errors import UserError
from ct_attn.terminal import progress_bar, stderr, stdout

app = typer.Typer(
    name="ct-attn",
    help="Segment pancreas, spleen and kidneys in abdominal CT with 3D attention U-Nets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(prepare_app, name="prepare")
for command in (
    train, plan, summarize, calibrate, predict, status, check, evaluate, compare, reproduce,
):  # fmt: skip
    app.command()(command)

#: What a full or write-protected disk answers, or an output whose place is taken.
CANNOT_WRITE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        stdout.print(f"ct_attn {__version__}")
        raise typer.Exit


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for everything the demo makes.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the synthetic cohort and the training.", min=0)] = 1,
) -> None:
    """The whole road on a synthetic cohort: make it, train, predict, evaluate, report."""
    from ct_attn.demo import run_demo
    from ct_attn.tables import summary_table

    with progress_bar() as progress:
        made = run_demo(output, seed=seed, progress=progress)
    stdout.print(summary_table("Held-out cases, trained network", made.evaluation.summaries))
    stdout.print(
        summary_table(
            "The same cases, a guess without looking: a ball at each organ's usual place",
            made.baseline.summaries,
        )
    )
    stdout.print(
        f"masks   {made.masks}\nscores  {made.evaluation.scores_csv}\nreport  {made.evaluation.report}"
    )
    stdout.print(f"model   {made.model}")


@app.command()
def phantom(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the cohort and its manifest.")],
    n_cases: Annotated[int, typer.Option("-n", "--cases", help="Training cases.", min=2)] = 12,
    n_test: Annotated[int, typer.Option("--test", help="Held-out cases besides.", min=0)] = 0,
    folds: Annotated[int, typer.Option(help="Folds the training cases are put into.", min=2)] = 4,
    seed: Annotated[int, typer.Option(help="Every byte follows from it.", min=0)] = 0,
    pixel_mm: Annotated[tuple[float, float], typer.Option(help="Range of the spacing in plane.")] = (
        0.6,
        1.0,
    ),
    slice_mm: Annotated[tuple[float, float], typer.Option(help="Range of the slice spacing.")] = (0.75, 5.0),
    degrade: Annotated[
        str, typer.Option(help="Worse scans: noise=2,blur_mm=1,streaks=40,slices=3,field_of_view=0.7.")
    ] = "",
    jobs: Annotated[
        int, typer.Option(help="Processes that draw at a time; each takes about 1 GB.", min=1)
    ] = 1,
) -> None:
    """Make a synthetic abdominal CT cohort with exact labels."""
    from ct_attn.datasets.phantom.cohort import CohortConfig, make_cohort
    from ct_attn.datasets.phantom.config import PhantomConfig
    from ct_attn.datasets.phantom.degradation import parse_degradation

    try:
        scans = PhantomConfig(in_plane_spacing_mm=pixel_mm, slice_spacing_mm=slice_mm)
        config = CohortConfig(
            n_training=n_cases,
            n_test=n_test,
            n_folds=folds,
            seed=seed,
            phantom=scans,
            degradation=parse_degradation(degrade),
        )
    except ValueError as error:
        raise UserError(
            "ct-attn phantom", expected="a cohort", found=str(error), remedy="change the numbers"
        ) from error
    with progress_bar() as progress:
        task = progress.add_task("drawing cases", total=n_cases + n_test)
        manifest = make_cohort(
            config, output, jobs=jobs, on_case=lambda done, total: progress.update(task, completed=done)
        )
    stdout.print(f"manifest  {manifest}")


@app.command()
def doctor() -> None:
    """Versions, devices, threads, and what is missing."""
    from ct_attn.doctor import examine

    for finding in examine():
        stdout.print(f"{finding.subject:<16} {finding.state}", markup=False)


def main() -> None:
    """The ``ct-attn`` command. A user's error is one line and exit code 2."""
    try:
        app()
    except UserError as error:
        stderr.print(f"error: {error}", markup=False)
        sys.exit(2)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        where = error.filename or "the output"
        stderr.print(f"error: {where}: {error.strerror}; make room or choose another -o", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        stderr.print("stopped")
        sys.exit(130)
