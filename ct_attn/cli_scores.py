"""The commands that score masks and compare scores: ``ct-attn evaluate`` and ``ct-attn compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ct_attn.errors import UserError
from ct_attn.terminal import progress_bar, report_failures, stderr, stdout

if TYPE_CHECKING:
    from ct_attn.datasets.source import CodeTable

Labels = Annotated[
    str,
    typer.Option(
        help="What codes of foreign masks mean: pancreas=1,kidney=2,kidney=3,ignore=4-117.",
        show_default=False,
    ),
]


def evaluate(
    truth: Annotated[Path, typer.Option(help="A mask, a folder of masks, or a manifest (its test cases).")],
    predicted: Annotated[Path, typer.Option(help="A mask, or a folder of masks named like the cases.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the scores and the report.")],
    fold: Annotated[int | None, typer.Option(help="Evaluate this fold of a manifest.")] = None,
    truth_labels: Labels = "",
    predicted_labels: Labels = "",
    surface_convention: Annotated[
        Literal["area", "voxel", "contour"],
        typer.Option(help="What surfaces are: area-weighted elements, boundary voxels, contours of slices."),
    ] = "area",
    count_empty: Annotated[
        bool, typer.Option("--count-empty", help="An organ in neither mask counts as DSC 1.")
    ] = False,
    resample_predictions: Annotated[
        bool,
        typer.Option("--resample-predictions", help="Bring masks on other grids onto the truth's (nearest)."),
    ] = False,
    per_slice: Annotated[
        bool, typer.Option("--per-slice", help="Also score every axial slice, into slices.csv.")
    ] = False,
    attention: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the gates' coefficients [default: MASK_attention/ beside each mask].",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        int, typer.Option(help="Cases drawn in the report: the worst, a median one and the best.", min=0)
    ] = 6,
    viewer: Annotated[
        int,
        typer.Option(help="Cases in the report's interactive viewer, chosen likewise; 0 for none.", min=0),
    ] = 3,
    side_by_side: Annotated[
        bool,
        typer.Option("--side-by-side", help="Also draw every case into pictures/: image, truth, prediction."),
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that share the cases.", min=1)] = 1,
) -> None:
    """Score masks against the truth: DSC, precision, recall, S2S in mm, and more."""
    from ct_attn.evaluate import Reading, Showing
    from ct_attn.evaluate import evaluate as run
    from ct_attn.metrics import ScoreOptions, SurfaceConvention
    from ct_attn.tables import summary_table

    reading = Reading(
        truth_codes=_codes("--truth-labels", truth_labels),
        predicted_codes=_codes("--predicted-labels", predicted_labels),
        resample=resample_predictions,
    )
    options = ScoreOptions(surface=SurfaceConvention(surface_convention), count_empty=count_empty)
    with progress_bar() as progress:
        evaluation = run(
            truth,
            predicted,
            output,
            progress=progress,
            fold=fold,
            reading=reading,
            options=options,
            showing=Showing(pictures=pictures, viewer=viewer, attention=attention, side_by_side=side_by_side),
            per_slice=per_slice,
            workers=workers,
        )
    n_scored = len({score.case_id for score in evaluation.scores})
    stdout.print(summary_table(f"{n_scored} cases", evaluation.summaries))
    stdout.print(f"scores  {evaluation.scores_csv}")
    if evaluation.slices_csv is not None:
        stdout.print(f"slices  {evaluation.slices_csv}")
    if evaluation.pictures is not None:
        stdout.print(f"pictures {evaluation.pictures}")
    stdout.print(f"report  {evaluation.report}")
    if evaluation.resampled:
        stderr.print(f"resampled onto the truth's grid: {', '.join(evaluation.resampled)}", markup=False)
    for sentence in evaluation.presumed:
        stderr.print(f"note: {sentence}", markup=False)
    for sentence in evaluation.cut_off:
        stderr.print(f"warning: {sentence}", markup=False)
    report_failures(evaluation.failures, evaluation.n_cases)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Two or more evaluations, as PATH or NAME=PATH; one name twice is averaged."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for tables, numbers and report.")],
    intersection: Annotated[
        bool, typer.Option("--intersection", help="Compare on the cases and organs that all runs have.")
    ] = False,
    pictures: Annotated[
        int, typer.Option(help="Cases drawn beside their truth, those that differ most.", min=0)
    ] = 0,
    truth: Annotated[
        Path | None,
        typer.Option(help="For --pictures: the truth, as evaluate was given it.", show_default=False),
    ] = None,
    fold: Annotated[int | None, typer.Option(help="For --pictures: the fold of a manifest.")] = None,
    predicted: Annotated[
        list[str] | None,
        typer.Option(
            help="For --pictures: NAME=FOLDER of a run's masks [default: masks/ in or beside its scores].",
            show_default=False,
        ),
    ] = None,
    truth_labels: Labels = "",
    predicted_labels: Labels = "",
) -> None:
    """Set evaluations of the same cases side by side, with statistics and pictures."""
    from ct_attn.compare import compare as run
    from ct_attn.compare_pictures import Picturing
    from ct_attn.pairing import Reading
    from ct_attn.tables import comparison_tables

    reading = Reading(
        truth_codes=_codes("--truth-labels", truth_labels),
        predicted_codes=_codes("--predicted-labels", predicted_labels),
        resample=True,
    )
    picturing = Picturing(
        n=pictures, truth=truth, predicted=_folders(predicted or []), fold=fold, reading=reading
    )
    comparison = run(runs, output, intersection=intersection, picturing=picturing)
    for note in comparison.notes:
        stderr.print(f"note: {note}", markup=False)
    for table in comparison_tables(comparison.pairs):
        stdout.print(table)
    stdout.print(f"tables  {comparison.markdown}, {comparison.latex}\nnumbers {comparison.comparison_json}")
    for picture in comparison.pictures:
        stdout.print(f"picture {picture}", markup=False)
    stdout.print(f"report  {comparison.report}")


def _folders(options: list[str]) -> dict[str, Path]:
    """The folders in ``NAME=FOLDER``."""
    found = {}
    for option in options:
        name, equals, folder = option.partition("=")
        if not (name and equals and folder):
            raise UserError(
                f"--predicted {option}", expected="NAME=FOLDER", found=option, remedy="name the run first"
            )
        found[name] = Path(folder)
    return found


def _codes(option: str, text: str) -> CodeTable | None:
    """The table in ``pancreas=1,kidney=3,ignore=4-6``, or None for no text."""
    from ct_attn.datasets.folder import parse_code_table
    from ct_attn.datasets.source import NAMES

    if not text:
        return None
    try:
        return parse_code_table(text, NAMES)
    except ValueError as error:
        raise UserError(
            f"{option} {text}",
            expected="organ=code,organ=code",
            found=str(error),
            remedy="name these organs' codes, and with ignore=CODE or ignore=CODE-CODE all others",
        ) from error
