"""The command that uses a model: ``ct-attn predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ct_attn.cli_data import Rescale, SpacingMm
from ct_attn.terminal import Device, progress_bar, report_failures, stderr, stdout


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
