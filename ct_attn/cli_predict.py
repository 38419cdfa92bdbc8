"""The commands that use a model: ``ct-attn predict``, ``ct-attn status``, ``ct-attn calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ct_attn.cli_data import Rescale, SpacingMm
from ct_attn.errors import UserError
from ct_attn.terminal import Device, progress_bar, report_failures, stderr, stdout

Models = Annotated[
    list[Path],
    typer.Option("-m", "--model", help="The model folder of a training run; several are averaged."),
]
Sources = Annotated[
    list[Path],
    typer.Option(
        "-i",
        "--input",
        help="A scan (.nii.gz, .nii, .mha, .nrrd or a DICOM folder), a folder of them, or a manifest.json "
        "for its test cases; or several -i.",
    ),
]
Memory = Annotated[
    str | None, typer.Option(help="Bound of what a prediction holds at a time: 2G, 800M.", show_default=False)
]

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def predict(
    model: Models,
    source: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .nii.gz for one scan, else a folder.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict all anew and replace masks that exist.")
    ] = False,
    organs: Annotated[str, typer.Option(help="Only these in the mask: pancreas,spleen.")] = "",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write each organ's probability too.")
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Write the gates' coefficients too.")
    ] = False,
    features: Annotated[
        bool,
        typer.Option(
            "--features", help="A picture of the skips before and after the gates; with --attention's files."
        ),
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Write a picture (PNG) too.")] = False,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Measure each organ; CSV and JSON over all scans.")
    ] = False,
    filter_: Annotated[
        str,
        typer.Option(
            "--filter",
            help="Parts to drop: auto (as ct-attn calibrate chose), off, largest, 2ml, kidney=largest+2ml.",
        ),
    ] = "auto",
    fast: Annotated[bool, typer.Option("--fast", help="A coarser grid: a first look, in less time.")] = False,
    tta: Annotated[
        bool | None,
        typer.Option("--tta/--no-tta", help="Average with mirrored copies [default: as the recipe says]."),
    ] = None,
    backend: Annotated[
        Literal["auto", "torch", "openvino"], typer.Option(help="What computes; auto takes the faster.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None,
        typer.Option(help="Number format of the network [default: as the recipe says].", show_default=False),
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Through torch.compile (slow to begin; for large cohorts).")
    ] = False,
    memory: Memory = None,
    body_mask: Annotated[
        bool, typer.Option("--body-mask/--no-body-mask", help="Compute only where the patient is.")
    ] = True,
    windows: Annotated[
        Literal["chosen", "trained"],
        typer.Option(help="As large as memory allows, or of the training's patch, as its validation saw."),
    ] = "chosen",
    cluster: Annotated[
        str | None,
        typer.Option(help="Share scans out with Dask: local, slurm, tcp://HOST:PORT.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(help="Workers of --cluster local or slurm.", min=1)] = 2,
    num_parts: Annotated[int, typer.Option(help="Predict one part of so many (for job arrays).", min=1)] = 1,
    part_id: Annotated[int, typer.Option(help="Which part, from 0.", min=0)] = 0,
    spacing: SpacingMm = None,
    prefer: Annotated[
        Literal["sform", "qform"] | None, typer.Option(help="Which is right where they disagree.")
    ] = None,
    rescale: Rescale = None,
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
    """Write a mask and a record for every scan, on the scan's own grid; what is done is skipped."""
    from ct_attn.inference.options import InferenceOptions
    from ct_attn.predict import Cohort
    from ct_attn.predict import predict as run
    from ct_attn.prediction.request import Outputs, Request
    from ct_attn.scan_io.options import ReadingOptions

    reading = ReadingOptions(
        max_voxels=max_voxels,
        spacing_mm=spacing,
        prefer=prefer,
        rescale=rescale,
        series=series,
        fix_spacing=fix_spacing,
        fix_tilt=fix_tilt,
    )
    inference = InferenceOptions(
        device=device,
        backend=backend,
        precision=precision,
        memory_bytes=parse_bytes(memory),
        fast=fast,
        mirroring=tta,
        body_mask=body_mask,
        windows=windows,
        compile=compile_,
    )
    outputs = Outputs(
        organs=tuple(name.strip() for name in organs.split(",") if name.strip()),
        probabilities=probabilities,
        attention=attention or features,
        features=features,
        preview=preview,
        statistics=statistics,
    )
    with progress_bar() as progress:
        predictions = run(
            Request(
                models=tuple(model), inference=inference, reading=reading, outputs=outputs, filter=filter_
            ),
            source,
            output,
            progress=progress,
            overwrite=overwrite,
            cohort=Cohort(cluster=cluster, workers=workers, n_parts=num_parts, part=part_id),
            on_note=_print_note,
        )
    for mask in predictions.masks:
        stdout.print(f"mask  {mask}", markup=False)
    if predictions.skipped:
        stdout.print(f"done before  {len(predictions.skipped)}")
    for path in predictions.statistics:
        stdout.print(f"statistics  {path}", markup=False)
    n_cases = len(predictions.failures) + len(predictions.masks) + len(predictions.skipped)
    report_failures(predictions.failures, n_cases)


def status(
    source: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the masks are or will be.")],
    model: Annotated[
        list[Path] | None,
        typer.Option("-m", "--model", help="Masks of other models are not done.", show_default=False),
    ] = None,
) -> None:
    """Which scans have their mask, which are missing or failed and why; exit code 1 unless all are done."""
    from ct_attn.predict import status as look
    from ct_attn.prediction.cases import State

    with progress_bar() as progress:
        found = look(source, output, models=model or (), progress=progress)
    undone = [one for one in found if one.state != State.DONE]
    for one in undone:
        reason = f": {one.reason}" if one.reason else ""
        stdout.print(f"{one.state.value:<14} {one.case.name}{reason}", markup=False)
    stdout.print(f"done           {len(found) - len(undone)} of {len(found)}")
    if undone:
        raise typer.Exit(1)


def calibrate(
    model: Annotated[Path, typer.Option("-m", "--model", help="The model folder of a training run.")],
    data: Annotated[Path, typer.Option(help="The manifest with the validation cases.")],
    fold: Annotated[
        int | None,
        typer.Option(help="The fold to validate on [default: that of the training].", show_default=False),
    ] = None,
    device: Device = "auto",
) -> None:
    """Learn on validation cases which parts of organs to drop and what a model's confidence is worth."""
    from ct_attn.calibrate import calibrate as run
    from ct_attn.inference.options import InferenceOptions
    from ct_attn.tables import calibration_table

    with progress_bar() as progress:
        done = run(model, data, progress=progress, fold=fold, inference=InferenceOptions(device=device))
    stdout.print(calibration_table(done.learnt))
    stdout.print(f"kept    {done.path}\nreport  {done.report}", markup=False)


def parse_bytes(text: str | None) -> int | None:
    """Bytes in ``2G``, ``800M`` or ``1.5GiB``; None for None.

    Raises :class:`UserError` for anything else.
    """
    if text is None:
        return None
    number = text.upper().removesuffix("IB").removesuffix("B")
    factor = _UNITS.get(number[-1:], 1)
    try:
        size = int(float(number.rstrip("KMGT")) * factor)
        if size <= 0:
            raise ValueError(text)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"--memory {text}", expected="a size such as 2G or 800M", found=text, remedy="mend it"
        ) from error
    return size


def _print_note(name: str, note: str) -> None:
    kind, _, rest = note.partition("warning: ")
    label, text = ("warning", rest) if not kind and rest else ("note", note)
    stderr.print(f"{label}: {name + ': ' if name else ''}{text}", markup=False)
