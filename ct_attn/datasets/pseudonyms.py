"""Numbers for cases and patients, and the key that says whose they are."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ct_attn import atomic
from ct_attn.errors import UserError

_CASE, _PATIENT = "case", "patient"
_OTHER_FILE = "choose a new file for the key, or the one of an earlier run"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One case: its pseudonyms, and the ``name`` and ``patient`` that were found."""

    case_id: str
    patient_id: str
    name: str
    patient: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Which case is which; ``path`` is the CSV file to keep it in, apart from the data."""

    path: Path
    rows: tuple[KeyRow, ...]

    def require_outside(self, folder: Path) -> None:
        """Raise :class:`UserError` where the key would lie in ``folder``, with the data."""
        if self.path.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                self.path,
                expected=f"a key file outside {folder}",
                found="one among the data that it names",
                remedy="keep it where only those may read it who may know the patients",
            )

    def write(self) -> None:
        """Write the key, whole or not at all, for its owner's eyes; one that says the same is left alone."""
        if self.path.is_file() and read_key(self.path) == self.rows:
            return
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(_columns())
        lines.writerows(map(astuple, self.rows))
        with atomic.replacing(self.path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(text.getvalue(), encoding="utf-8")


def make_key(path: Path, patient_of: Mapping[str, str]) -> Key:
    """The key in ``path``, or a new one, with a row for every name in ``patient_of`` (name -> patient).

    What has a number keeps it; names that are new get the next ones, in their order, and so do
    patients. Nothing is written. Raises :class:`UserError` when the file is something else, or
    has a name with another patient.
    """
    rows = read_key(path)
    known = {row.name: row for row in rows}
    moved = [name for name in known.keys() & patient_of.keys() if known[name].patient != patient_of[name]]
    if moved:
        raise UserError(
            path,
            expected="the same patients as when it was written",
            found=f"{len(moved)} of {len(known)} cases with another",
            remedy="give the same --patients, or a new key file and a new -o",
        )
    numbers = {row.patient: row.patient_id for row in rows}
    next_case, next_patient = _next(row.case_id for row in rows), _next(numbers.values())
    added = []
    for name in sorted(patient_of.keys() - known.keys()):
        patient = patient_of[name]
        if patient not in numbers:
            numbers[patient] = f"{_PATIENT}_{next_patient:04d}"
            next_patient += 1
        added.append(
            KeyRow(
                case_id=f"{_CASE}_{next_case:04d}", patient_id=numbers[patient], name=name, patient=patient
            )
        )
        next_case += 1
    return Key(path=path, rows=(*rows, *added))


def read_key(path: Path) -> tuple[KeyRow, ...]:
    """The rows of the key in ``path``; none where there is no file.

    Raises :class:`UserError` when it is something else than a key.
    """
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
        if not lines or tuple(lines[0]) != _columns():
            raise ValueError("other columns")
        rows = tuple(KeyRow(**dict(zip(_columns(), line, strict=True))) for line in lines[1:])
        _require_consistent(rows)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            path,
            expected=f"no file yet, or a key with the columns {','.join(_columns())}",
            found="something else",
            remedy=_OTHER_FILE,
        ) from error
    return rows


def _columns() -> tuple[str, ...]:
    return tuple(field.name for field in fields(KeyRow))


def _require_consistent(rows: Sequence[KeyRow]) -> None:
    """Raise ``ValueError`` unless every name has one number, and every patient."""
    _next(row.case_id for row in rows)
    _next(row.patient_id for row in rows)
    patients = {(row.patient, row.patient_id) for row in rows}
    for several in (
        [row.name for row in rows],
        [row.case_id for row in rows],
        [patient for patient, _ in patients],
        [patient_id for _, patient_id in patients],
    ):
        if len(set(several)) != len(several):
            raise ValueError("one of them twice")


def _next(ids: Iterable[str]) -> int:
    """The number after the largest of ``ids``; ``ValueError`` for one that is no pseudonym."""
    numbers = []
    for one in ids:
        match = re.fullmatch(rf"(?:{_CASE}|{_PATIENT})_(\d{{4,}})", one)
        if match is None:
            raise ValueError("no pseudonym")
        numbers.append(int(match[1]))
    return max(numbers, default=0) + 1
