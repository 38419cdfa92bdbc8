"""The commands that make and prove data sets: ``ct-attn prepare`` and ``ct-attn check``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ct_attn.errors import UserError
from ct_attn.terminal import progress_bar, stderr, stdout

if TYPE_CHECKING:
    from ct_attn.datasets.alignment import Flip
    from ct_attn.datasets.source import Download
    from ct_attn.scan_io.options import ReadingOptions

prepare_app = typer.Typer(
    help="Turn a data set as downloaded into scans, labels and a manifest that are proven to fit.",
    no_args_is_help=True,
)

Output = Annotated[
    Path, typer.Option("-o", "--output", help="Folder for it all; an interrupted run goes on in it.")
]
Jobs = Annotated[
    int,
    typer.Option(help="Processes at a time; each takes up to 1.5 GB (512x512x466).", min=1),
]
MemoryGb = Annotated[
    float | None, typer.Option("--memory-gb", help="Run no more jobs than fit into so much.", min=1.5)
]
Folds = Annotated[int, typer.Option(help="Folds the patients are put into.", min=2)]
TestShare = Annotated[
    float,
    typer.Option(help="Share of the cases to keep apart for the test, by whole patients.", min=0, max=0.9),
]
Seed = Annotated[int, typer.Option(help="Of test cases and folds.", min=0)]
Flips = Annotated[
    list[str] | None,
    typer.Option("--flip", help="CASE=FLIP for a label in doubt: none, left-right, front-back+up-down ..."),
]
Prefer = Annotated[str | None, typer.Option(help="sform or qform, where a scan's two disagree.")]
SpacingMm = Annotated[
    tuple[float, float, float] | None,
    typer.Option(help="Voxel size in mm of a NIfTI file that states neither spacing nor place."),
]
Rescale = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Slope and intercept that make HU of other values; 1 0 takes them as they are."),
]
FixSpacing = Annotated[
    bool, typer.Option("--fix-spacing", help="Resample DICOM series with missing slices onto a regular grid.")
]
FixTilt = Annotated[
    bool, typer.Option("--fix-tilt", help="Resample DICOM series with a tilted gantry onto a regular grid.")
]

#: What preparing the largest scan of Pancreas-CT (512 x 512 x 466) takes at most.
GB_PER_JOB = 1.5


@prepare_app.command("pancreas-ct")
def pancreas_ct(
    images: Annotated[Path, typer.Option(help="The folder of PANCREAS_0001, PANCREAS_0002, ...")],
    labels: Annotated[Path, typer.Option(help="The folder of label0001.nii.gz, ...")],
    output: Output,
    multi_organ: Annotated[
        Path | None, typer.Option(help="The labels of Gibson et al. (Zenodo 1169361), unpacked.")
    ] = None,
    split: Annotated[str, typer.Option(help="4-fold, 5-fold or paper-style-59-21.")] = "4-fold",
    seed: Annotated[int | None, typer.Option(help="Of the split; by default data_manifests/'s.")] = None,
    flip: Flips = None,
    fix_spacing: FixSpacing = False,
    fix_tilt: FixTilt = False,
    jobs: Jobs = 1,
    memory_gb: MemoryGb = None,
) -> None:
    """TCIA Pancreas-CT: DICOM series, NIfTI labels, paired by case number."""
    from ct_attn.datasets.pancreas_ct import find_pancreas_ct
    from ct_attn.datasets.pancreas_ct_splits import SEED, SPLITS, draw_split

    if split not in SPLITS:
        raise UserError(
            f"--split {split}", expected=", ".join(SPLITS), found="another name", remedy="choose one"
        )
    drawn = draw_split(split, seed=SEED if seed is None else seed)
    _prepare(
        find_pancreas_ct(images, labels, multi_organ), output, jobs=jobs, memory_gb=memory_gb,
        options=_options(None, fix_spacing, fix_tilt), flips=flip, split=(drawn.folds, drawn.test),
    )  # fmt: skip


@prepare_app.command()
def msd(
    folder: Annotated[Path, typer.Argument(help="Task07_Pancreas or Task09_Spleen, unpacked.")],
    output: Output,
    folds: Folds = 5,
    test_share: TestShare = 0.0,
    seed: Seed = 0,
    flip: Flips = None,
    prefer: Prefer = None,
    jobs: Jobs = 1,
    memory_gb: MemoryGb = None,
) -> None:
    """Medical Segmentation Decathlon: pancreas (with its tumour) or spleen."""
    from ct_attn.datasets.msd import find_msd

    _prepare(
        find_msd(folder), output, folds=folds, test_share=test_share, seed=seed, jobs=jobs,
        memory_gb=memory_gb, options=_options(prefer), flips=flip,
    )  # fmt: skip


@prepare_app.command()
def btcv(
    folder: Annotated[Path, typer.Argument(help="The folder with img0001.nii.gz, label0001.nii.gz, ...")],
    output: Output,
    folds: Folds = 5,
    test_share: TestShare = 0.0,
    seed: Seed = 0,
    flip: Flips = None,
    prefer: Prefer = None,
    jobs: Jobs = 1,
    memory_gb: MemoryGb = None,
) -> None:
    """BTCV (Beyond the Cranial Vault), abdomen: pancreas, spleen, both kidneys."""
    from ct_attn.datasets.btcv import find_btcv

    _prepare(
        find_btcv(folder), output, folds=folds, test_share=test_share, seed=seed, jobs=jobs,
        memory_gb=memory_gb, options=_options(prefer), flips=flip,
    )  # fmt: skip


@prepare_app.command()
def amos(
    folder: Annotated[Path, typer.Argument(help="The folder amos22, unpacked.")],
    output: Output,
    folds: Folds = 5,
    test_share: TestShare = 0.0,
    seed: Seed = 0,
    flip: Flips = None,
    prefer: Prefer = None,
    jobs: Jobs = 1,
    memory_gb: MemoryGb = None,
) -> None:
    """AMOS 2022, its CT cases (numbers below 500): pancreas, spleen, both kidneys."""
    from ct_attn.datasets.amos import find_amos

    _prepare(
        find_amos(folder), output, folds=folds, test_share=test_share, seed=seed, jobs=jobs,
        memory_gb=memory_gb, options=_options(prefer), flips=flip,
    )  # fmt: skip


@prepare_app.command("folder")
def own_folder(
    images: Annotated[Path, typer.Option(help="Scans: NIfTI files, or folders of DICOM slices.")],
    labels: Annotated[Path, typer.Option(help="Label maps named like the scans.")],
    labels_map: Annotated[str, typer.Option(help="What the codes mean: pancreas=1,left_kidney=3,ignore=7.")],
    output: Output,
    name: Annotated[str, typer.Option(help="Of the data set.")] = "own data",
    source: Annotated[str, typer.Option(help="Where it comes from.")] = "not stated",
    licence: Annotated[str, typer.Option(help="What may be done with it.")] = "not stated",
    patients: Annotated[
        Path | None, typer.Option(help="CSV with case_id,patient_id, where patients have several scans.")
    ] = None,
    pseudonyms: Annotated[
        Path | None,
        typer.Option(
            help="Number cases and patients; this CSV, outside the output, keeps which is which.",
            show_default=False,
        ),
    ] = None,
    folds: Folds = 5,
    test_share: TestShare = 0.0,
    seed: Seed = 0,
    flip: Flips = None,
    prefer: Prefer = None,
    spacing: SpacingMm = None,
    rescale: Rescale = None,
    fix_spacing: FixSpacing = False,
    fix_tilt: FixTilt = False,
    jobs: Jobs = 1,
    memory_gb: MemoryGb = None,
) -> None:
    """A folder of one's own: scans and labels of the same names."""
    from ct_attn.datasets.folder import find_folder, parse_code_table

    try:
        table = parse_code_table(labels_map)
    except ValueError as error:
        raise UserError(
            f"--labels-map {labels_map}", expected="organ=code,...", found=str(error), remedy="mend it"
        ) from error
    found = find_folder(
        images, labels, table, name=name, source=source, licence=licence, patients=patients, key=pseudonyms
    )
    _prepare(
        found, output, folds=folds, test_share=test_share, seed=seed, jobs=jobs,
        memory_gb=memory_gb, flips=flip,
        options=replace(_options(prefer, fix_spacing, fix_tilt), spacing_mm=spacing, rescale=rescale),
    )  # fmt: skip


def check(
    manifest: Annotated[Path, typer.Argument(help="The manifest to prove.")],
    data_root: Annotated[Path | None, typer.Option(help="Where its files lie, when not beside it.")] = None,
    fill_digests: Annotated[
        bool, typer.Option("--fill-digests", help="Write missing digests into the manifest.")
    ] = False,
    jobs: Jobs = 1,
) -> None:
    """Prove a manifest: digests, grids, codes, labels on their organs, no leak between folds."""
    from ct_attn.check import check as run
    from ct_attn.check import summary_lines

    with progress_bar() as progress:
        result = run(manifest, progress=progress, data_root=data_root, fill_digests=fill_digests, jobs=jobs)
    for line in summary_lines(result):
        stdout.print(line, markup=False)
    for word, findings in (("doubtful", result.doubtful), ("wrong", result.wrong)):
        for finding in findings:
            stdout.print(f"{word}  {finding.case_id}: {finding.text}", markup=False)
    if result.unverified > result.filled:
        stderr.print(
            "unverified files have no digest; --fill-digests writes those of sound cases", markup=False
        )
    if result.wrong:
        stderr.print(f"{len(result.wrong)} findings are wrong")
        raise typer.Exit(1)


def _prepare(
    download: Download,
    output: Path,
    *,
    options: ReadingOptions,
    flips: list[str] | None,
    jobs: int,
    memory_gb: float | None,
    folds: int = 0,
    test_share: float = 0.0,
    seed: int = 0,
    split: tuple[Mapping[str, int], frozenset[str]] | None = None,
) -> None:
    """Prepare ``download``, and print what came of it; exit code 1 where a case was refused."""
    from ct_attn.folds import draw_folds, draw_test
    from ct_attn.prepare import HowToPrepare, prepare
    from ct_attn.tables import preparation_lines

    if split is None:
        patient_of = {case.case_id: case.patient_id for case in download.cases}
        try:
            test = draw_test(patient_of, test_share, seed=seed)
        except ValueError as error:
            raise UserError(
                f"--test-share {test_share:g}",
                expected="a share that holds the cases of a patient",
                found=str(error),
                remedy="choose a larger one, or 0 for no test cases",
            ) from error
        rest = {case: patient for case, patient in patient_of.items() if case not in test}
        try:
            split = draw_folds(rest, folds, seed=seed), test
        except ValueError as error:
            raise UserError(
                f"--folds {folds}",
                expected="a patient for each fold",
                found=str(error),
                remedy="choose fewer folds" + (", or a smaller --test-share" if test_share else ""),
            ) from error
    if memory_gb is not None:
        jobs = min(jobs, int(memory_gb / GB_PER_JOB))
    how = HowToPrepare(folds=split[0], test=split[1], options=options, flips=_flips(flips), jobs=jobs)
    with progress_bar() as progress:
        made = prepare(download, output, how, progress=progress)
    for line in preparation_lines(made.rows):
        stdout.print(line, markup=False)
    for notice in made.notices:
        stdout.print(f"noticed   {notice}", markup=False)
    stdout.print(f"manifest  {made.manifest or 'none'}\nsheet     {made.sheet}", markup=False)
    for case_id, reason in made.refused.items():
        stderr.print(f"refused: {case_id}: {reason}", markup=False)
    if made.refused:
        raise typer.Exit(1)


def _options(prefer: str | None, fix_spacing: bool = False, fix_tilt: bool = False) -> ReadingOptions:
    from ct_attn.scan_io.options import ReadingOptions

    match prefer:
        case None | "sform" | "qform":
            form = prefer
        case _:
            found = "neither"
            raise UserError(f"--prefer {prefer}", expected="sform or qform", found=found, remedy="choose one")
    return ReadingOptions(prefer=form, fix_spacing=fix_spacing, fix_tilt=fix_tilt)


def _flips(said: list[str] | None) -> dict[str, Flip]:
    from ct_attn.datasets.alignment import parse_flip

    flips = {}
    for text in said or ():
        case_id, _, flip = text.partition("=")
        try:
            flips[case_id] = parse_flip(flip)
        except ValueError as error:
            raise UserError(
                f"--flip {text}", expected="CASE=FLIP", found=str(error), remedy="write CASE=front-back"
            ) from error
    return flips
