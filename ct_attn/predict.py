"""The step from scans and a model to masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from ct_attn.errors import UserError
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.scan_io import nifti
from ct_attn.scan_io.options import AS_IT_IS, ReadingOptions
from ct_attn.scan_io.scan import ScanFile, find_scans, read_scan
from ct_attn.volume import Volume

#: Hears, of the scan so named, what was done to it beyond reading what its file says.
OnScanNote = Callable[[str, str], None]


def _no_scan_note(name: str, note: str) -> None:
    """Let a note pass unheard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """The masks that were written, and for each scan that failed, why."""

    masks: tuple[Path, ...]
    failures: tuple[str, ...]


def predict(
    model: Path,
    source: Path,
    output: Path,
    *,
    progress: Progress,
    device: str = "auto",
    overwrite: bool = False,
    attention: bool = False,
    options: ReadingOptions = AS_IT_IS,
    on_note: OnScanNote = _no_scan_note,
) -> Predictions:
    """Write a mask for every scan in ``source`` with the model in the folder ``model``.

    ``source`` is a scan file, a folder of them, a DICOM folder or a folder of DICOM
    folders, read as ``options`` say. ``output`` is a file for one scan (``.nii.gz``), else a folder that gets
    ``<name of the scan>.nii.gz``. A scan that cannot be read does not stop the others
    unless it is the only one. With ``attention``, the gates' coefficients go into the
    folder ``<name of the mask>_attention`` beside it, on the scan's grid. Raises
    :class:`UserError` for a wrong model, source or output, or a mask that exists,
    before anything is predicted.
    """
    scans = find_scans(source)
    targets = _targets(scans, output, overwrite=overwrite)
    predictor = Predictor.load(model, InferenceOptions(device=device))
    task = progress.add_task("predicting", total=len(scans))
    masks, failures = [], []
    for number, (scan, target) in enumerate(zip(scans, targets, strict=True)):
        progress.update(task, description=f"predicting {scan.name}")

        def on_window(done: int, total: int, number: int = number) -> None:
            progress.update(task, completed=number + done / total)

        def on_this_note(note: str, name: str = scan.name) -> None:
            on_note(name, note)

        try:
            volume = read_scan(scan.path, options, on_this_note)
            frame = nifti.frame_of(scan.path, volume.grid)
            mask = predictor.predict(volume, on_window)
            nifti.write_mask(mask, target, scheme=predictor.scheme, frame=frame)
            if attention:
                _write_attention(predictor, volume, target, frame)
        except UserError as error:
            if len(scans) == 1:
                raise
            failures.append(str(error))
        else:
            masks.append(target)
        progress.update(task, completed=number + 1)
    return Predictions(masks=tuple(masks), failures=tuple(failures))


def _targets(scans: list[ScanFile], output: Path, *, overwrite: bool) -> list[Path]:
    if nifti.has_nifti_name(output):
        if len(scans) > 1:
            raise UserError(
                output,
                expected=f"a folder for {len(scans)} masks",
                found="a file name",
                remedy="give a folder to -o",
            )
        targets = [output]
    else:
        targets = [output / f"{scan.name}.nii.gz" for scan in scans]
    for scan, target in zip(scans, targets, strict=True):
        if target.exists() and (not overwrite or target.samefile(scan.path)):
            raise UserError(
                target,
                expected="no such file yet",
                found="one",
                remedy="choose another -o, or add --overwrite",
            )
    return targets


def _write_attention(
    predictor: Predictor, volume: Volume, target: Path, frame: nifti.NiftiFrame | None
) -> None:
    folder = target.with_name(f"{nifti.stem(target)}_attention")
    for name, alpha in predictor.attention(volume).items():
        nifti.write_volume(alpha, folder / f"{name}.nii.gz", frame=frame)
