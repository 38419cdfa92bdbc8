"""A folder of one's own: scans and labels that go by the same names."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from ct_attn.datasets.pseudonyms import Key, make_key
from ct_attn.datasets.source import (
    CodeTable,
    Download,
    is_case_id,
    nifti_files,
    pair_by_stem,
    require_cases,
    require_folder,
)
from ct_attn.errors import UserError
from ct_attn.labels import ORGANS
from ct_attn.scan_io.identity import Identity, read_identity, repeats
from ct_attn.scan_io.scan import find_scans

_IGNORED = "ignore"
_UNFIT_NAME = "expected a name of letters, digits, dot, dash and underscore; rename its files"


def parse_code_table(text: str, names: Collection[str] = ORGANS) -> CodeTable:
    """The table in ``pancreas=1,spleen=3,ignore=7-9``; an organ may have several codes.

    Raises ``ValueError`` when it can't be read that way, or an organ is none of ``names``.
    """
    organs: dict[int, str] = {}
    ignored: dict[int, str] = {}
    for part in text.split(","):
        name, sign, codes = (piece.strip() for piece in part.partition("="))
        if not sign:
            raise ValueError(f"{part.strip() or 'nothing'} is not organ=code")
        if name not in (*names, _IGNORED):
            raise ValueError(f"unknown organ {name}; known are {', '.join(names)}")
        for code in _parse_codes(codes, part.strip()):
            if code in organs or code in ignored:
                raise ValueError(f"code {code} stands twice")
            (ignored if name == _IGNORED else organs)[code] = name
    if not organs:
        raise ValueError("no organ")
    return CodeTable(organs=organs, ignored=ignored)


def _parse_codes(text: str, part: str) -> range:
    """The codes in ``7``, or in ``7-9``, of which both ends count."""
    first, dash, last = (piece.strip() for piece in text.partition("-"))
    if not (first.isdecimal() and (last.isdecimal() if dash else True)):
        raise ValueError(f"{part} is not organ=code")
    codes = range(int(first), int(last or first) + 1)
    if not codes or codes[0] < 1 or codes[-1] > 255:
        raise ValueError(f"codes are 1 to 255, the lower one first, got {text}")
    return codes


def find_folder(
    images: Path,
    labels: Path,
    table: CodeTable,
    *,
    name: str,
    source: str,
    licence: str,
    patients: Path | None = None,
    key: Path | None = None,
) -> Download:
    """The cases with a scan in ``images`` and a label of the same stem in ``labels``.

    A scan is a NIfTI file or a folder of DICOM slices; nnU-Net's ending ``_0000`` is
    dropped. ``patients`` is a CSV file with the columns ``case_id`` and ``patient_id``;
    without it every case counts as another patient. With ``key`` cases and patients are
    numbered as that file says, or will (:mod:`ct_attn.datasets.pseudonyms`).

    Raises :class:`UserError` when there is no case, a case has no patient in the file,
    ``key`` is something else, or there is none and a name or a patient's id repeats what a
    DICOM header says of the patient.
    """
    require_folder(images, "a folder of scans")
    scans = {scan.name.removesuffix("_0000"): scan.path for scan in find_scans(images)}
    files = nifti_files(labels)
    require_cases(scans.keys() & files.keys(), images, "scans and labels of the same names")
    said = _read_patients(patients) if patients else {}
    patient_of = {stem: said.get(stem, stem) for stem in scans.keys() | files.keys()}
    if key is None:
        _require_no_identity(images, scans, patient_of)
    if patients is not None:
        _require_all({stem for stem in scans.keys() & files.keys() if stem not in said}, patients, key)
    pseudonyms: Key | None = None
    aside = 0
    if key is not None:
        # A scan or label alone, whose patient isn't said yet, gets its number once that is.
        known = said if patients else patient_of
        pseudonyms = make_key(key, {stem: known[stem] for stem in patient_of if stem in known})
        number_of = {row.name: row.case_id for row in pseudonyms.rows}
        aside = len((scans.keys() | files.keys()) - number_of.keys())
        scans, files = (
            {number_of[stem]: path for stem, path in found.items() if stem in number_of}
            for found in (scans, files)
        )
        patient_of = {row.case_id: row.patient_id for row in pseudonyms.rows}
    cases, notices = pair_by_stem(scans, files, table)
    cases = [replace(case, patient_id=patient_of[case.case_id]) for case in cases]
    if aside:
        notices.append(f"left aside: {aside} without a patient, and without the scan or the label")
    if patients is None:
        notices.append("no --patients given: every case counts as another patient")
    unfit = {case.case_id for case in cases if not is_case_id(case.case_id)}
    return Download(
        name=name,
        source=source,
        licence=licence,
        cases=tuple(case for case in cases if case.case_id not in unfit),
        refused=dict.fromkeys(sorted(unfit), _UNFIT_NAME),
        notices=tuple(notices),
        key=pseudonyms,
    )


def _require_all(without: Collection[str], patients: Path, key: Path | None) -> None:
    """Raise :class:`UserError` where cases are ``without`` a patient; with a ``key`` they are not named."""
    if without:
        raise UserError(
            patients,
            expected="a patient_id for every case",
            found=f"none for {', '.join(sorted(without)) if key is None else f'{len(without)} cases'}",
            remedy="add",
        )


def _require_no_identity(images: Path, scans: Mapping[str, Path], patient_of: Mapping[str, str]) -> None:
    """Refuse names and patients' ids that repeat what a DICOM header says of the patient.

    A label without a scan is compared with all headers: it may be any patient's.
    """
    identities = {stem: read_identity(path) for stem, path in scans.items() if path.is_dir()}
    anyone = Identity()
    for identity in identities.values():
        anyone |= identity
    telling = [
        stem
        for stem, patient in patient_of.items()
        for identity in [identities.get(stem, anyone)]
        if repeats(stem, identity) or repeats(patient, identity)
    ]
    if telling:
        raise UserError(
            images,
            expected="names and patients' ids that repeat nothing of what DICOM headers say of patients",
            found=f"{len(telling)} of {len(patient_of)} that do",
            remedy="number them with --pseudonyms KEYFILE, which keeps apart from the data who is who",
        )


def _read_patients(path: Path) -> Mapping[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["case_id"], row["patient_id"]) for row in csv.DictReader(file)]
            return {case_id: patient_id for case_id, patient_id in rows if case_id and patient_id}
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            path,
            expected="a CSV file with the columns case_id and patient_id",
            found=f"none that can be read ({type(error).__name__})",
            remedy="write it, one line per case",
        ) from error
