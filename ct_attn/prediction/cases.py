"""Which scans are to be predicted, where their outputs go, and which of them are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from ct_attn.errors import UserError
from ct_attn.manifest import read_manifest
from ct_attn.prediction.record import (
    MASK,
    OutputFiles,
    PredictionRecord,
    changed_outputs,
    is_of_input,
    read_failure,
    read_record,
)
from ct_attn.prediction.request import Outputs, Resolved
from ct_attn.scan_io import nifti
from ct_attn.scan_io.identity import read_identity, repeats
from ct_attn.scan_io.scan import ScanFile, find_scans

#: What a scan is called whose own name may not be used, before its number.
_UNNAMED = "unnamed_"
_TELLING = "one that does, and outputs are named after it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A scan and where its outputs go.

    ``refusal``: why it may not be predicted, whatever it holds: its outputs would say whose it is.
    """

    scan: ScanFile
    files: OutputFiles
    refusal: UserError | None = None

    @property
    def name(self) -> str:
        """What its outputs are called: like the scan, or as the user named a single mask."""
        return self.files.name


class State(StrEnum):
    """How far a case is; the values are what ``ct-attn status`` prints."""

    DONE = "done"
    MISSING = "missing"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    INCOMPLETE = "incomplete"
    OTHER_SCAN = "other scan"
    OTHER_MODEL = "other model"
    OTHER_SETTINGS = "other settings"
    CHANGED = "changed"
    FOREIGN = "foreign"


#: Their mask was made by someone for something else: it is replaced only by the user's word.
KEPT = (State.OTHER_MODEL, State.OTHER_SETTINGS, State.CHANGED, State.FOREIGN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A case, how far it is, and in words why it is no further."""

    case: Case
    state: State
    reason: str = ""


def find_cases(sources: Sequence[Path], output: Path) -> list[Case]:
    """The scans of all ``sources``, by name, with their outputs in ``output``.

    A source is what :func:`find_scans` takes, or a manifest (``.json``) for its test cases.
    ``output`` is a file for one scan (``.nii.gz``, ``.nii``), else a folder. A DICOM folder whose
    name repeats what its headers say of the patient is refused and goes by its number there.
    Raises :class:`UserError` when there is no scan, two share a name or an output, or a mask
    would take the place of its scan.
    """
    scans = sorted((scan for source in sources for scan in _scans_of(source)), key=lambda scan: scan.name)
    cases = sorted(_with_targets(scans, output), key=lambda case: case.name)
    for name, group in groupby(cases, key=lambda case: case.name):
        same = [case.scan for case in group]
        if len(same) > 1:
            raise UserError(
                same[1].path,
                expected="scans of different names",
                found=f"a second one named {name} (the first is {same[0].path})",
                remedy="rename one, or predict it into another -o: their masks would have the same name",
            )
    _require_apart(cases, output)
    return cases


def _scans_of(source: Path) -> list[ScanFile]:
    if source.suffix.lower() != ".json":
        return find_scans(source)
    test = read_manifest(source).test
    if not test:
        raise UserError(
            source,
            expected="a manifest with test cases",
            found="none",
            remedy="name the folder of the scans instead",
        )
    return [ScanFile(name=case.case_id, path=source.parent / case.image) for case in test]


def _with_targets(scans: Sequence[ScanFile], output: Path) -> list[Case]:
    if nifti.has_nifti_name(output):
        if len(scans) > 1:
            raise UserError(
                output,
                expected=f"a folder for {len(scans)} masks",
                found="a file name",
                remedy="give a folder to -o",
            )
        return [Case(scan=scans[0], files=OutputFiles(mask=output))]
    if output.exists() and not output.is_dir():
        raise UserError(output, expected="a folder, or a new one", found="a file", remedy="choose another -o")
    return [
        _unnamed(scan, output, number, len(scans))
        if _tells_identity(scan)
        else Case(scan=scan, files=OutputFiles(mask=output / f"{scan.name}.nii.gz"))
        for number, scan in enumerate(scans, start=1)
    ]


def _tells_identity(scan: ScanFile) -> bool:
    return scan.path.is_dir() and repeats(scan.name, read_identity(scan.path))


def _unnamed(scan: ScanFile, output: Path, number: int, total: int) -> Case:
    """A case that is refused, under a name that tells nothing: its record and all lines bear it."""
    return Case(
        scan=scan,
        files=OutputFiles(mask=output / f"{_UNNAMED}{number:04d}.nii.gz"),
        refusal=UserError(
            f"scan {number} of {total} by name",
            expected="a folder name that repeats nothing of what its DICOM headers say of the patient",
            found=_TELLING,
            remedy="rename the folder, or name the output of a single scan: -o NAME.nii.gz (headers with "
            "PatientIdentityRemoved=YES are taken to hold pseudonyms)",
        ),
    )


def forget_refusals(cases: Sequence[Case], output: Path) -> None:
    """Remove what was written of refused scans that are no longer among ``cases``: they were renamed."""
    present = {case.files.failure for case in cases}
    for failure in output.glob(f"{_UNNAMED}[0-9]*.failed.json"):
        if failure not in present and _TELLING in failure.read_text(encoding="utf-8"):
            failure.unlink(missing_ok=True)


def _require_apart(cases: Sequence[Case], output: Path) -> None:
    written: dict[Path, str] = {}
    for case in cases:
        mask = case.files.mask
        if mask.exists() and case.scan.path.exists() and mask.samefile(case.scan.path):
            raise UserError(
                mask, expected="another file than the scan", found="the scan", remedy="choose another -o"
            )
        for path in (mask, case.files.record, case.files.failure):
            if path in written:
                raise UserError(
                    output,
                    expected="outputs of different names",
                    found=f"{path.name} of both {written[path]} and {case.name}",
                    remedy="rename one of the scans",
                )
            written[path] = case.name


def examine(case: Case, expected: Resolved | None = None, *, models: tuple[str, ...] | None = None) -> Status:
    """How far ``case`` is; with ``expected``, whether it is what that request would make.

    ``models``: digests of models, when only they are known.
    """
    if case.refusal is not None:
        return Status(case=case, state=State.FAILED, reason=str(case.refusal))
    models = expected.model_digests if expected else models
    files = case.files
    record = read_record(files)
    if files.mark.exists():
        return Status(case=case, state=State.UNFINISHED, reason="its process ended before its time")
    if record is None and files.mask.exists():
        return Status(case=case, state=State.FOREIGN, reason="a mask without a record")
    if failure := read_failure(files):
        return Status(case=case, state=State.FAILED, reason=failure.cause)
    if record is None or not files.mask.exists():
        return Status(case=case, state=State.MISSING)
    return _compare(case, record, expected, models)


def _compare(
    case: Case, record: PredictionRecord, expected: Resolved | None, models: tuple[str, ...] | None
) -> Status:
    changed = changed_outputs(record, case.files)
    if MASK in changed:
        return Status(case=case, state=State.CHANGED, reason="the mask was changed after it was written")
    if models is not None and tuple(model.digest for model in record.models) != models:
        names = ", ".join(model.recipe for model in record.models)
        return Status(case=case, state=State.OTHER_MODEL, reason=f"made by another model ({names})")
    if expected is not None and record.settings_digest != expected.settings_digest:
        wanted = expected.settings
        differing = sorted(key for key, value in wanted.items() if record.settings.get(key) != value)
        reason = f"made with other settings ({', '.join(differing)})"
        return Status(case=case, state=State.OTHER_SETTINGS, reason=reason)
    if not is_of_input(record, case.scan.path):
        return Status(case=case, state=State.OTHER_SCAN, reason="the scan was changed since")
    lacking = [*changed, *(_not_written(record, expected.request.outputs) if expected else ())]
    if lacking:
        return Status(case=case, state=State.INCOMPLETE, reason=f"without {', '.join(lacking)}")
    return Status(case=case, state=State.DONE)


def _not_written(record: PredictionRecord, wanted: Outputs) -> list[str]:
    """What is asked for and was not when the record was written."""
    kinds = {kind.partition("/")[0] for kind in record.outputs}
    lacking = [
        kind for kind in ("probabilities", "attention", "features", "preview") if getattr(wanted, kind)
    ]
    return [kind for kind in lacking if kind not in kinds] + (
        ["statistics"] if wanted.statistics and record.statistics is None else []
    )


def require_replaceable(statuses: Sequence[Status]) -> None:
    """Raise :class:`UserError` when masks are there that are not for this run to replace."""
    kept = [status for status in statuses if status.state in KEPT]
    if not kept:
        return
    first = kept[0]
    more = f" (and {len(kept) - 1} more)" if len(kept) > 1 else ""
    raise UserError(
        first.case.files.mask,
        expected="no such file yet, or a mask made by this model with these options",
        found=f"{first.reason}{more}",
        remedy="choose another -o, or add --overwrite",
    )


def shard(cases: Sequence[Case], *, part: int, of: int) -> list[Case]:
    """The cases of part ``part`` (from 0) of ``of``: every ``of``-th, so that parts are alike."""
    if not 0 <= part < of:
        raise UserError(
            f"--part-id {part}",
            expected=f"0 to {of - 1} for --num-parts {of}",
            found=str(part),
            remedy="mend it",
        )
    return list(cases[part::of])
