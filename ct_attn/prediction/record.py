"""What is written down of a predicted scan: from what, by what, how.

The record is written after all other files of its case, so a case that has a fitting one
is done. It names no patient and no path: outputs are listed by kind, the scan by digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ct_attn import atomic
from ct_attn.manifest import file_digest, source_digest, source_files
from ct_attn.prediction.filtering import FilterEffect
from ct_attn.prediction.statistics import OrganStatistics
from ct_attn.scan_io import nifti
from ct_attn.strict_model import FrozenModel

MASK = "mask"
PREVIEW = "preview"
FEATURES = "features"


class InputFacts(FrozenModel):
    """The scan that was read; size and time of change spare reading it for its digest again."""

    digest: str
    bytes: int
    modified_ns: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str


class ModelUsed(FrozenModel):
    """A model by what it says of itself."""

    digest: str
    recipe: str
    recipe_digest: str


class PredictionRecord(FrozenModel):
    """One predicted scan.

    ``settings`` decide what the mask holds, ``settings_digest`` is theirs; ``options`` is
    all that was asked for. ``outputs``: digest of every file by kind (``mask``,
    ``preview``, ``features``, ``probabilities/ORGAN``, ``attention/GATE``). ``confidence`` by target, 0 to
    1, None where the target was not found; ``expected_dsc``: what cases of such a
    confidence reached in the model's calibration; ``uncalibrated``: why there is none, None
    where there is one. ``statistics`` is None where it was not
    asked for.
    """

    format: Literal["ct_attn prediction 1"] = "ct_attn prediction 1"
    input: InputFacts
    models: tuple[ModelUsed, ...]
    settings: dict[str, Any]
    settings_digest: str
    options: dict[str, Any]
    labels: dict[str, int]
    outputs: dict[str, str]
    seconds: dict[str, float]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    confidence: dict[str, float | None]
    expected_dsc: dict[str, float | None]
    uncalibrated: str | None = None
    filtered: dict[str, FilterEffect]
    statistics: tuple[OrganStatistics, ...] | None
    versions: dict[str, str]


class FailureRecord(FrozenModel):
    """Why a scan has no mask. It is removed once the scan has one."""

    format: Literal["ct_attn failure 1"] = "ct_attn failure 1"
    cause: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFiles:
    """Where everything of one scan goes, named after its ``mask``."""

    mask: Path

    @property
    def name(self) -> str:
        return nifti.stem(self.mask)

    @property
    def record(self) -> Path:
        return self.mask.with_name(f"{self.name}.json")

    @property
    def failure(self) -> Path:
        return self.mask.with_name(f"{self.name}.failed.json")

    @property
    def mark(self) -> Path:
        """Is there while files are written, so that what a killed process left is known as ours."""
        return self.mask.with_name(f".unfinished-{self.name}")

    def of_kind(self, kind: str) -> Path:
        """The file of an output, by its kind in :attr:`PredictionRecord.outputs`."""
        if kind == MASK:
            return self.mask
        if kind == PREVIEW:
            return self.mask.with_name(f"{self.name}.png")
        if kind == FEATURES:
            return self.mask.with_name(f"{self.name}_features.png")
        folder, _, part = kind.partition("/")
        return self.mask.with_name(f"{self.name}_{folder}") / f"{part}.nii.gz"


def input_facts(source: Path) -> tuple[str, int, int]:
    """Digest, bytes and time of the last change (ns) of a scan file or a folder of slices."""
    size, modified_ns = input_stamp(source)
    return source_digest(source), size, modified_ns


def input_stamp(source: Path) -> tuple[int, int]:
    """Bytes and time of the last change (ns), by which an unchanged scan is known without reading it."""
    stats = [file.stat() for file in source_files(source)]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def is_of_input(record: PredictionRecord, source: Path) -> bool:
    """Whether ``source`` is still the scan that ``record`` tells of."""
    if input_stamp(source) == (record.input.bytes, record.input.modified_ns):
        return True
    return source_digest(source) == record.input.digest


def changed_outputs(record: PredictionRecord, files: OutputFiles) -> list[str]:
    """Kinds of outputs that are gone, or hold other bytes than were written."""
    return [
        kind
        for kind, digest in record.outputs.items()
        if not files.of_kind(kind).is_file() or file_digest(files.of_kind(kind)) != digest
    ]


def read_record(files: OutputFiles) -> PredictionRecord | None:
    """The record beside a mask, or None where there is none that can be read."""
    try:
        return PredictionRecord.model_validate_json(files.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_failure(files: OutputFiles) -> FailureRecord | None:
    """What is written down of a scan's last failure, or None."""
    try:
        return FailureRecord.model_validate_json(files.failure.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_json(record: FrozenModel, path: Path) -> None:
    atomic.write_text(path, record.model_dump_json(indent=1) + "\n")


def settings_digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
