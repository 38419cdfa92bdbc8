"""The command line: parse, call a step or a chain, print what came of it. Nothing else.

What a command needs is imported when it runs, so that ``ct-attn --help`` answers at once.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ct_attn import __version__
from ct_attn.cli_data import check, prepare_app
from ct_attn.cli_scores import compare, evaluate
from ct_attn.errors import UserError
from ct_attn.terminal import progress_bar, report_failures, stderr, stdout

app = typer.Typer(
    name="ct-attn",
    help="Segment pancreas, spleen and kidneys in abdominal CT with 3D attention U-Nets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(prepare_app, name="prepare")
for command in (check, evaluate, compare):
    app.command()(command)

#: What a full or write-protected disk answers, or an output whose place is taken.
CANNOT_WRITE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


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
    jobs: Annotated[
        int, typer.Option(help="Processes that draw at a time; each takes about 1 GB.", min=1)
    ] = 1,
) -> None:
    """Make a synthetic abdominal CT cohort with exact labels."""
    from ct_attn.datasets.phantom.cohort import CohortConfig, make_cohort
    from ct_attn.datasets.phantom.config import PhantomConfig

    try:
        scans = PhantomConfig(in_plane_spacing_mm=pixel_mm, slice_spacing_mm=slice_mm)
        config = CohortConfig(n_training=n_cases, n_test=n_test, n_folds=folds, seed=seed, phantom=scans)
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
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as pipelines/phantom/attention_unet.yaml.")],
    data: Annotated[Path, typer.Option(help="The manifest of the data set.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    fold: Annotated[int, typer.Option(help="The fold to validate on.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the output folder.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: training.epochs=50.")
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="A trained model to start from: every tensor that fits is taken.")
    ] = None,
    init_part: Annotated[
        list[str] | None, typer.Option(help="With --init-from, take only this part: encoder, decoder.0 ...")
    ] = None,
    pretrained_encoder: Annotated[
        Path | None, typer.Option(help="Weights for a ResNet encoder (.safetensors or .pth).")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for prepared cases [default: .ct_attn_cache beside the manifest, or where that "
            "cannot be written, cache in the run's folder].",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a recipe's network on a manifest's cases."""
    from ct_attn.recipe import read_recipe
    from ct_attn.train import train as run
    from ct_attn.training.start import Start

    checked = read_recipe(recipe, set_ or [])
    start = Start(model=init_from, parts=tuple(init_part or ()), encoder=pretrained_encoder)
    with progress_bar() as progress:
        model = run(
            checked,
            data,
            output,
            progress=progress,
            fold=fold,
            start=start,
            resume=resume,
            device=device,
            cache=cache,
        )
    stdout.print(f"model  {model}")


@app.command()
def plan(
    data: Annotated[Path, typer.Option(help="The manifest of the data set.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The recipe to write (.yaml).")],
    memory_gib: Annotated[
        float | None, typer.Option("--memory", help="GiB a training may use; default: most of what is free.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Propose a recipe for a data set and this machine, and say why."""
    from ct_attn.plan import plan as run
    from ct_attn.recipe import write_recipe

    if output.exists():
        raise UserError(
            output, expected="a new file", found="one that exists", remedy="choose another -o or remove it"
        )
    memory_bytes = None if memory_gib is None else memory_gib * 2**30
    with progress_bar() as progress:
        made = run(data, progress=progress, memory_bytes=memory_bytes, device=device)
    write_recipe(made.recipe, output)
    for reason in made.reasons:
        stdout.print(reason, markup=False)
    stdout.print(f"recipe  {output}")


@app.command()
def predict(
    model: Annotated[Path, typer.Option("-m", "--model", help="The model folder of a training run.")],
    source: Annotated[
        Path,
        typer.Option(
            "-i",
            "--input",
            help="A scan (.nii.gz, .nii, .mha, .nrrd or a DICOM folder), or a folder of them.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .nii.gz for one scan, else a folder.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that exist.")] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Write the gates' coefficients too.")
    ] = False,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Voxel size in mm of a NIfTI file that states neither spacing nor place."),
    ] = None,
    prefer: Annotated[
        Literal["sform", "qform"] | None, typer.Option(help="Which is right where they disagree.")
    ] = None,
    rescale: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Slope and intercept that make HU of other values; 1 0 takes them as they are."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="UID, or number in the list, of the DICOM series to take.")
    ] = None,
    fix_spacing: Annotated[
        bool, typer.Option("--fix-spacing", help="Resample DICOM slices at uneven steps to even ones.")
    ] = False,
    fix_tilt: Annotated[
        bool, typer.Option("--fix-tilt", help="Move the DICOM slices of a tilted gantry upright.")
    ] = False,
    max_voxels: Annotated[int, typer.Option(help="Refuse headers that promise more.", min=1)] = 2_000_000_000,
    device: Device = "auto",
) -> None:
    """Write a mask for every scan, on the scan's own grid."""
    from ct_attn.predict import predict as run
    from ct_attn.scan_io.options import ReadingOptions

    options = ReadingOptions(
        max_voxels=max_voxels,
        spacing_mm=spacing,
        prefer=prefer,
        rescale=rescale,
        series=series,
        fix_spacing=fix_spacing,
        fix_tilt=fix_tilt,
    )
    with progress_bar() as progress:
        predictions = run(
            model,
            source,
            output,
            progress=progress,
            device=device,
            overwrite=overwrite,
            attention=attention,
            options=options,
            on_note=lambda name, note: stderr.print(f"note: {name}: {note}", markup=False),
        )
    for mask in predictions.masks:
        stdout.print(f"mask  {mask}")
    report_failures(predictions.failures, len(predictions.failures) + len(predictions.masks))


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
