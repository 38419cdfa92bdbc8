"""A data set as a file: which cases there are, where, what they label, which fold.

The JSON is a superset of the Medical Segmentation Decathlon's ``dataset.json``
(``labels``, ``training``, ``test``, paths relative to the file), so MONAI's
``load_decathlon_datalist`` reads it; what it adds is checked here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ct_attn import atomic
from ct_attn.errors import UserError
from ct_attn.labels import ORGANS, LabelScheme
from ct_attn.strict_model import FrozenModel, describe_validation_error


class Case(FrozenModel):
    """One scan with its label map.

    Paths are relative to the manifest's folder. ``labelled_organs`` are those that
    the label map was made for: an organ missing there is unknown, not absent.
    ``fold`` is None for a case kept for testing.
    """

    case_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    patient_id: str
    image: str
    label: str
    image_digest: str | None = None
    label_digest: str | None = None
    labelled_organs: tuple[str, ...] = ORGANS
    fold: int | None = None

    @model_validator(mode="after")
    def _organs_are_known(self) -> Case:
        unknown = sorted(set(self.labelled_organs) - set(ORGANS))
        if unknown:
            raise ValueError(f"unknown organ {', '.join(unknown)}; known are {', '.join(ORGANS)}")
        return self


class Manifest(FrozenModel):
    """The cases of a data set. ``labels`` maps each code of the label files to its name."""

    format: Literal["ct_attn manifest"] = "ct_attn manifest"
    version: Literal[1] = 1
    name: str
    description: str = ""
    source: str
    licence: str
    modality: dict[str, str] = Field(default={"0": "CT"})
    labels: dict[str, str]
    training: tuple[Case, ...]
    test: tuple[Case, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        ids = [case.case_id for case in self.cases]
        twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
        if twice:
            raise ValueError(f"case_id {', '.join(twice)} occurs more than once")
        if any(case.fold is None for case in self.training):
            raise ValueError("every training case needs a fold")
        if any(case.fold is not None for case in self.test):
            raise ValueError("a test case has no fold")
        leaking = {case.patient_id for case in self.training} & {case.patient_id for case in self.test}
        if leaking:
            raise ValueError(f"patient {', '.join(sorted(leaking))} is in training and in test")
        _ = self.label_scheme
        return self

    @property
    def cases(self) -> tuple[Case, ...]:
        return self.training + self.test

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(sorted({case.fold for case in self.training if case.fold is not None}))

    @property
    def label_scheme(self) -> LabelScheme:
        return LabelScheme.from_names({name: int(code) for code, name in self.labels.items() if code != "0"})


def read_manifest(path: Path) -> Manifest:
    """The manifest in ``path``. Raises :class:`UserError` when it is missing or wrong."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            path, expected="a manifest file", found=error.strerror or "none", remedy="check the path"
        ) from error
    except ValueError as error:
        raise UserError(
            path, expected="JSON", found=str(error), remedy="mend or remake the manifest"
        ) from error
    if isinstance(fields, dict):
        fields.pop("numTraining", None)
        fields.pop("numTest", None)
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        raise UserError(
            path,
            expected="a manifest of this format",
            found=describe_validation_error(error),
            remedy="mend the manifest (docs/manifest.md lists its fields)",
        ) from error


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write ``manifest`` as JSON, with the counts Decathlon readers expect."""
    fields: dict[str, Any] = manifest.model_dump(mode="json")
    training, test = fields.pop("training"), fields.pop("test")
    fields |= {"numTraining": len(training), "numTest": len(test), "training": training, "test": test}
    atomic.write_text(path, json.dumps(fields, indent=1) + "\n")


def choose_fold(manifest: Manifest, fold: int, *, path: Path) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The training and the validation cases when ``fold`` is held out.

    Raises :class:`UserError` naming ``path`` when there is no such fold, nothing is
    left to train on, or a patient would be on both sides.
    """
    training = tuple(case for case in manifest.training if case.fold != fold)
    validation = tuple(case for case in manifest.training if case.fold == fold)
    folds = ", ".join(str(known) for known in manifest.folds)
    if not validation or not training:
        raise UserError(
            path,
            expected=f"cases inside and outside fold {fold}",
            found=f"folds {folds}" if folds else "no training cases",
            remedy="choose another --fold",
        )
    leaking = {case.patient_id for case in training} & {case.patient_id for case in validation}
    if leaking:
        raise UserError(
            path,
            expected=f"patients of fold {fold} in no other fold",
            found=f"patient {', '.join(sorted(leaking))} on both sides",
            remedy="put all cases of a patient into one fold",
        )
    return training, validation


def file_digest(path: Path) -> str:
    """``sha256:`` and the hexadecimal digest of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def source_files(path: Path) -> list[Path]:
    """The files of a scan: ``path`` itself, or what lies directly in a folder, but for hidden files."""
    if path.is_dir():
        return sorted(entry for entry in path.iterdir() if entry.is_file() and entry.name[0] != ".")
    return [path]


def source_digest(path: Path) -> str:
    """The digest of a file; of a folder (a DICOM series), that of its files' sorted digests.

    So neither the names of the slices nor their order count. Raises :class:`UserError`
    when there is no such file.
    """
    try:
        if not path.is_dir():
            return file_digest(path)
        lines = sorted(file_digest(file) for file in source_files(path))
    except FileNotFoundError as error:
        remedy = "restore it, or mend what names it"
        raise UserError(path, expected="a file", found="no such file", remedy=remedy) from error
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
