"""One case: read, put its labels in place, merge, measure, write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ct_attn import __version__, atomic
from ct_attn.datasets.alignment import Flip
from ct_attn.datasets.source import SourceCase
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, ORGANS
from ct_attn.manifest import file_digest, source_digest, source_files
from ct_attn.preparation.placing import PlacedLabel, agreement, place_label
from ct_attn.preparation.quality import marks, measure
from ct_attn.preparation.record import (
    CaseRecord,
    FlipEvidence,
    LabelOrigin,
    is_done,
    read_record,
    record_path,
    text_digest,
    voxel_digest,
    write_record,
)
from ct_attn.report.figures import case_picture
from ct_attn.scan_io import nifti
from ct_attn.scan_io.options import AS_IT_IS, ReadingOptions
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Mask, Volume

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A case and how to prepare it; ``flips`` are the user's word, by case id."""

    case: SourceCase
    output: Path
    options: ReadingOptions = AS_IT_IS
    flips: Mapping[str, Flip] = field(default_factory=dict)


def image_path(case_id: str) -> str:
    return f"imagesTr/{case_id}.nii.gz"


def label_path(case_id: str) -> str:
    return f"labelsTr/{case_id}.nii.gz"


def picture_path(case_id: str) -> str:
    return f"pictures/{case_id}.png"


def prepare_case(job: Job) -> CaseRecord | str:
    """The record of the case, which is prepared unless it was before; or why it is refused.

    Scan, label, picture and record go into ``job.output``, the record last. A refused
    case leaves nothing there. The reason names no path.
    """
    case = job.case
    try:
        digests = [source_digest(path) for path in (case.image, *(label.path for label in case.labels))]
        known = read_record(job.output, case.case_id)
        if known is not None and _is_of(known, job, digests) and is_done(known, job.output):
            return known
        _remove(job)
        return _convert(job, digests)
    except UserError as error:
        _remove(job)
        return _reason(error, case)


def _is_of(record: CaseRecord, job: Job, digests: list[str]) -> bool:
    """Whether ``record`` is of these very sources and settings."""
    sources = [record.scan, *(label.digest for label in record.labels)]
    return sources == digests and record.settings == _settings(job)


def _settings(job: Job) -> str:
    """A digest of everything but the sources that decides what is written."""
    flip = job.flips.get(job.case.case_id)
    tables = [
        [sorted(label.table.organs.items()), sorted(label.table.ignored), label.header_is_trusted]
        for label in job.case.labels
    ]
    decides = {
        "patient": job.case.patient_id,
        "tables": tables,
        "options": asdict(job.options),
        "flip": None if flip is None else str(flip),
    }
    return text_digest(json.dumps(decides, sort_keys=True))


def _remove(job: Job) -> None:
    """Take away what an earlier run made of the case, and the manifest that lists it; the record first."""
    case_id = job.case.case_id
    record_path(job.output, case_id).unlink(missing_ok=True)
    for path in (MANIFEST_NAME, image_path(case_id), label_path(case_id), picture_path(case_id)):
        (job.output / path).unlink(missing_ok=True)


def _reason(error: UserError, case: SourceCase) -> str:
    """The error without the paths of this machine, which may hold names and dates."""
    names = {case.image: "the scan"} | {label.path: "the label" for label in case.labels}
    about = [name for path, name in names.items() if error.subject.startswith(str(path))]
    text = f"expected {error.expected}, found {error.found}; {error.remedy}"
    for path, name in names.items():
        text = text.replace(str(path), name)
    return f"{about[0]}: {text}" if about else text


def _convert(job: Job, digests: list[str]) -> CaseRecord:
    case, notes = job.case, list[str]()
    volume = read_scan(case.image, job.options, notes.append)
    labels = np.zeros(volume.grid.shape, dtype=np.uint8)
    origins, agreeing = list[LabelOrigin](), dict[str, float]()
    for file, digest in zip(case.labels, digests[1:], strict=True):
        placed = place_label(file, volume, job.flips.get(case.case_id))
        agreeing |= agreement(labels, placed.labels, file)
        np.copyto(labels, placed.labels, where=labels == 0)
        origins.append(_origin(placed, digest, file.table.labelled_organs))
    mask = Mask(labels=labels, grid=volume.grid)
    facts = measure(volume, mask)
    present = tuple(organ.organ for organ in facts.organs)
    made_for = [organ for organ in ORGANS if any(organ in origin.organs for origin in origins)]
    record = CaseRecord(
        case_id=case.case_id,
        patient_id=case.patient_id,
        settings=_settings(job),
        scan=digests[0],
        scan_files=len(source_files(case.image)),
        labels=tuple(origins),
        corrections=tuple(notes),
        agreement=agreeing,
        labelled_organs=present,
        facts=facts,
        marks=tuple(marks(facts, present, made_for)),
        voxels=voxel_digest(volume),
        outputs=_write(job, volume, mask),
        versions=_versions(),
    )
    write_record(record, job.output)
    return record


def _origin(placed: PlacedLabel, digest: str, organs: tuple[str, ...]) -> LabelOrigin:
    return LabelOrigin(
        digest=digest,
        organs=organs,
        flip=str(placed.flip),
        decided_by=placed.decided_by,
        evidence=tuple(
            FlipEvidence(
                flip=str(one.flip),
                mean_hu=round(one.mean_hu, 2),
                soft_tissue_share=round(one.soft_tissue_share, 4),
                edge_contrast_hu=round(one.edge_contrast_hu, 2),
            )
            for one in placed.evidence
        ),
    )


def _write(job: Job, volume: Volume, mask: Mask) -> dict[str, str]:
    """Write scan, label and picture; their digests by path."""
    case_id = job.case.case_id
    nifti.write_volume(volume, job.output / image_path(case_id))
    nifti.write_mask(mask, job.output / label_path(case_id), scheme=DISK_SCHEME)
    picture = case_picture(volume, mask, scheme=DISK_SCHEME)
    atomic.write_bytes(job.output / picture_path(case_id), picture)
    paths = (image_path(case_id), label_path(case_id), picture_path(case_id))
    return {path: file_digest(job.output / path) for path in paths}


def _versions() -> dict[str, str]:
    packages = ("nibabel", "numpy", "scipy", "pydicom", "highdicom")
    return {"ct_attn": __version__} | {package: version(package) for package in packages}
