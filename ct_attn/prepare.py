"""The step from a data set as downloaded to scans, labels, a manifest and proof that they fit."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from ct_attn import __version__, atomic
from ct_attn.datasets.alignment import Flip
from ct_attn.datasets.source import Download
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, ORGANS
from ct_attn.manifest import Case, Manifest, read_manifest, write_manifest
from ct_attn.preparation.convert import (
    MANIFEST_NAME,
    Job,
    image_path,
    label_path,
    picture_path,
    prepare_case,
)
from ct_attn.preparation.record import FOLDER, CaseRecord
from ct_attn.report.contact_sheet import SheetRow, write_contact_sheet
from ct_attn.report.page import CasePicture
from ct_attn.scan_io.options import AS_IT_IS, ReadingOptions
from ct_attn.workers import run_in_processes

PROVENANCE_NAME = "provenance.jsonl"
SHEET_NAME = "contact_sheet.html"
_MARK_NAME = ".prepared.json"
_LOCK_NAME = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToPrepare:
    """``folds``: case id -> fold, for more cases than there may be; ``test``: cases kept apart.

    ``flips`` are the user's word on labels that the image leaves in doubt, by case id.
    """

    folds: Mapping[str, int]
    test: Collection[str] = ()
    options: ReadingOptions = AS_IT_IS
    flips: Mapping[str, Flip] = field(default_factory=dict)
    jobs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What came of it; ``manifest`` is None when every case was refused."""

    manifest: Path | None
    sheet: Path
    rows: tuple[SheetRow, ...]
    refused: Mapping[str, str]
    notices: tuple[str, ...]


def prepare(download: Download, output: Path, how: HowToPrepare, *, progress: Progress) -> Preparation:
    """Convert the cases of ``download`` into the folder ``output``; the manifest is written last.

    A case that was prepared before from the same bytes and in the same way is kept. One
    that can't be used is refused by name and does not stop the others. Raises
    :class:`UserError` when ``output`` holds something else or is being written to, would
    hold the key of the pseudonyms, or ``flips`` names a case that isn't there.
    """
    _require_known(how.flips, download)
    if download.key is not None:
        download.key.require_outside(output)
    with _claimed(output, download):
        if download.key is not None:
            download.key.write()  # before anything bears a number of it
        _sweep(output)
        records, refused = _convert(download, output, how, progress)
        _sweep(output)
        return _write(download, output, how, records, refused)


def _require_known(flips: Mapping[str, Flip], download: Download) -> None:
    unknown = sorted(set(flips) - {case.case_id for case in download.cases})
    if unknown:
        raise UserError(
            f"--flip {unknown[0]}",
            expected=f"a case of {download.name}",
            found="none of that name",
            remedy="name the case as the contact sheet does",
        )


@contextmanager
def _claimed(output: Path, download: Download) -> Iterator[None]:
    """Hold ``output`` against other runs; it is empty or holds the same data set, prepared before."""
    mark, claim = output / _MARK_NAME, {"data set": download.name}
    if download.key is not None:
        claim["names"] = "pseudonyms"  # files by other names may lie where they were none
    if output.exists() and not output.is_dir():
        raise UserError(output, expected="a folder", found="a file", remedy="choose another -o")
    there = any(entry.name != _LOCK_NAME for entry in output.iterdir()) if output.is_dir() else False
    if there and (not mark.is_file() or json.loads(mark.read_text(encoding="utf-8")) != claim):
        raise UserError(
            output,
            expected=f"an empty folder, or {download.name} prepared before",
            found="something else in it",
            remedy="choose another -o",
        )
    numbered = download.key is not None and (output / "imagesTr").is_dir()
    if download.key is not None and numbered and not download.key.path.is_file():
        raise UserError(
            download.key.path,
            expected=f"the key with which {output} was prepared",
            found="no such file",
            remedy="give that one: another would number the cases anew",
        )
    output.mkdir(parents=True, exist_ok=True)
    with (output / _LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for it, or choose another -o"
            raise UserError(
                output, expected="no other run in this folder", found="one at work", remedy=remedy
            ) from error
        atomic.write_text(mark, json.dumps(claim) + "\n")
        yield


def _sweep(output: Path) -> None:
    """Remove what a killed run left half-written; nothing else begins like that."""
    for folder in (output, output / FOLDER, output / "imagesTr", output / "labelsTr", output / "pictures"):
        for partial in folder.glob(".partial-*"):
            partial.unlink(missing_ok=True)


def _convert(
    download: Download, output: Path, how: HowToPrepare, progress: Progress
) -> tuple[list[CaseRecord], dict[str, str]]:
    """The records of the prepared cases, and why the others are refused; both by case id."""
    jobs = [Job(case=case, output=output, options=how.options, flips=how.flips) for case in download.cases]
    task = progress.add_task("preparing", total=len(jobs))
    records: list[CaseRecord] = []
    refused = dict(download.refused)
    for job, result in run_in_processes(prepare_case, jobs, jobs=how.jobs):
        if isinstance(result, CaseRecord):
            records.append(result)
        else:
            refused[job.case.case_id] = result
        progress.update(task, advance=1, description=f"prepared {job.case.case_id}")
    return sorted(records, key=lambda record: record.case_id), dict(sorted(refused.items()))


def _write(
    download: Download,
    output: Path,
    how: HowToPrepare,
    records: Sequence[CaseRecord],
    refused: Mapping[str, str],
) -> Preparation:
    manifest = _manifest(download, how, records) if records else None
    notices = [*download.notices, *_copies(records), *_tested_before(output / MANIFEST_NAME, manifest)]
    rows = [_row(record, how) for record in records]
    lines = (record.model_dump_json() for record in records)
    atomic.write_text(output / PROVENANCE_NAME, "".join(f"{line}\n" for line in lines))
    write_contact_sheet(
        output / SHEET_NAME,
        title=f"{download.name}, prepared",
        facts={
            "Cases": str(len(records)),
            "Source": download.source,
            "Licence": download.licence,
            "Labels": ", ".join(f"{code} {name}" for name, code in DISK_SCHEME.codes.items()),
            "Written by": f"ct_attn {__version__}",
        },
        notices=notices,
        refused=refused,
        rows=rows,
        organs=ORGANS,
        pictures=[_picture(record, output) for record in records],
    )
    if manifest is not None:
        write_manifest(manifest, output / MANIFEST_NAME)
    else:
        (output / MANIFEST_NAME).unlink(missing_ok=True)
    return Preparation(
        manifest=output / MANIFEST_NAME if manifest else None,
        sheet=output / SHEET_NAME,
        rows=tuple(rows),
        refused=refused,
        notices=tuple(notices),
    )


def _tested_before(path: Path, manifest: Manifest | None) -> Iterator[str]:
    """What the manifest that was at ``path`` kept apart for the test, and ``manifest`` trains on."""
    if manifest is None or not path.is_file():
        return
    try:
        before = {case.case_id for case in read_manifest(path).test}
    except UserError:
        return
    moved = sorted(before & {case.case_id for case in manifest.training})
    if moved:
        yield (
            f"{len(moved)} of the {len(before)} test cases of the manifest that was here are for training "
            f"now (another share or seed, or more cases): {', '.join(moved)}"
        )


def _copies(records: Sequence[CaseRecord]) -> Iterator[str]:
    """Scans that are the same to the last voxel, whatever they are called."""
    holders: dict[str, list[str]] = {}
    for record in records:
        holders.setdefault(record.voxels, []).append(record.case_id)
    for case_ids in holders.values():
        if len(case_ids) > 1:
            yield f"the same scan under several names, which must share a fold: {', '.join(case_ids)}"


def _row(record: CaseRecord, how: HowToPrepare) -> SheetRow:
    facts = record.facts
    return SheetRow(
        case_id=record.case_id,
        part="test" if record.case_id in how.test else f"fold {how.folds[record.case_id]}",
        shape=facts.shape,
        spacing_mm=facts.spacing_mm,
        orientation=facts.orientation,
        hu=(facts.hu_min, facts.hu_p01, facts.hu_median, facts.hu_p99, facts.hu_max),
        padding_voxels=facts.padding_voxels,
        volumes_ml={organ.organ: organ.volume_ml for organ in facts.organs},
        flips=", ".join(dict.fromkeys(label.flip for label in record.labels)),
        corrections=record.corrections,
        marks=record.marks,
    )


def _picture(record: CaseRecord, output: Path) -> CasePicture:
    return CasePicture(
        case_id=record.case_id,
        png=(output / picture_path(record.case_id)).read_bytes(),
        alt=f"Axial, coronal and sagittal slices of {record.case_id} with the label's contours",
    )


def _manifest(download: Download, how: HowToPrepare, records: Sequence[CaseRecord]) -> Manifest:
    cases = [
        Case(
            case_id=record.case_id,
            patient_id=record.patient_id,
            image=image_path(record.case_id),
            label=label_path(record.case_id),
            image_digest=record.outputs[image_path(record.case_id)],
            label_digest=record.outputs[label_path(record.case_id)],
            labelled_organs=record.labelled_organs,
            fold=None if record.case_id in how.test else how.folds[record.case_id],
        )
        for record in records
    ]
    return Manifest(
        name=download.name,
        description=f"Prepared by ct_attn {__version__}; {PROVENANCE_NAME} says from what and how.",
        source=download.source,
        licence=download.licence,
        labels={"0": "background"} | {str(code): name for name, code in DISK_SCHEME.codes.items()},
        training=tuple(case for case in cases if case.fold is not None),
        test=tuple(case for case in cases if case.fold is None),
    )
