"""What is written down of a prepared case: where it came from and what was done to it.

A record is written after the files it tells of, so a case that has a fitting one is done.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ct_attn import atomic
from ct_attn.manifest import file_digest
from ct_attn.preparation.quality import CaseFacts
from ct_attn.strict_model import FrozenModel
from ct_attn.volume import Volume

FOLDER = ".cases"


class FlipEvidence(FrozenModel):
    """How a label lay on the image under one flip; see :mod:`ct_attn.datasets.alignment`."""

    flip: str
    mean_hu: float
    soft_tissue_share: float
    edge_contrast_hu: float


class LabelOrigin(FrozenModel):
    """One label file: digest of the source, the flip taken, who decided on it, the evidence.

    ``decided_by``: ``image`` (only one flip fits), ``header`` (trusted, and the image
    speaks for no other) or ``user``.
    """

    digest: str
    organs: tuple[str, ...]
    flip: str
    decided_by: str
    evidence: tuple[FlipEvidence, ...]


class CaseRecord(FrozenModel):
    """The provenance of a case. Digests are of files, but ``voxels``, which is of the HU.

    ``settings`` is a digest of what was asked for; ``corrections`` say what was done to
    the scan beyond reading it; ``agreement`` is the DSC of organs that two label files
    hold; ``outputs`` are the files made, relative to the output folder.
    """

    case_id: str
    patient_id: str
    settings: str
    scan: str
    scan_files: int
    labels: tuple[LabelOrigin, ...]
    corrections: tuple[str, ...]
    agreement: dict[str, float]
    labelled_organs: tuple[str, ...]
    facts: CaseFacts
    marks: tuple[str, ...]
    voxels: str
    outputs: dict[str, str]
    versions: dict[str, str]


def record_path(output: Path, case_id: str) -> Path:
    return output / FOLDER / f"{case_id}.json"


def write_record(record: CaseRecord, output: Path) -> None:
    atomic.write_text(record_path(output, record.case_id), record.model_dump_json(indent=1) + "\n")


def read_record(output: Path, case_id: str) -> CaseRecord | None:
    """The record of a case, or None where there is none that can be read."""
    try:
        return CaseRecord.model_validate_json(record_path(output, case_id).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def is_done(record: CaseRecord, output: Path) -> bool:
    """Whether every file that ``record`` tells of is there, with the bytes it was written with."""
    return all(
        (output / path).is_file() and file_digest(output / path) == digest
        for path, digest in record.outputs.items()
    )


def voxel_digest(volume: Volume) -> str:
    """A digest of the scan's values [I, J, K] alone: equal for two copies in whatever files."""
    digest = hashlib.sha256(str(volume.grid.shape).encode())
    for index in range(volume.grid.shape[2]):  # by slice: a scan is large
        digest.update(np.ascontiguousarray(volume.hu[:, :, index], dtype="<f4").tobytes())
    return f"sha256:{digest.hexdigest()}"


def text_digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
