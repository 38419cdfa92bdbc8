"""TCIA Pancreas-CT (NIH), with the multi-organ labels of Gibson et al. where there are any.

Images are DICOM, ``PANCREAS_0001/<study>/<series>/1-001.dcm`` (NBIA Data Retriever and
idc-index alike), labels NIfTI, ``label0001.nii.gz``. The labels' headers don't say
where they lie in the patient: pipelines flip them or stamp headers. So only the
order of their axes is taken from there, and the flips are proven from the image.

Roth et al. 2016, https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ct_attn.datasets.source import (
    CodeTable,
    Download,
    LabelFile,
    SourceCase,
    nifti_files,
    numbered,
    ranges,
    require_cases,
    require_folder,
)

NAME = "TCIA Pancreas-CT"
SOURCE = "https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU (version 2)"
MULTI_ORGAN_SOURCE = "https://doi.org/10.5281/zenodo.1169361"
LICENCE = "CC-BY-3.0"

#: Withdrawn in version 2 (2020-09-10): they repeat case 2. The archive of labels still holds them.
WITHDRAWN = {25: 2, 70: 2}
CASE_NUMBERS = tuple(number for number in range(1, 83) if number not in WITHDRAWN)

LABELS = CodeTable(organs={1: "pancreas"})

#: Gibson et al. 2018 number organs as BTCV does. In the Pancreas-CT cases these are labelled;
#: the right kidney, the great vessels and the adrenal glands are not.
MULTI_ORGAN_LABELS = CodeTable(
    organs={1: "spleen", 3: "left_kidney", 11: "pancreas"},
    ignored={4: "gallbladder", 5: "oesophagus", 6: "liver", 7: "stomach", 14: "duodenum"},
)

_CASE_FOLDER = re.compile(r"PANCREAS_(\d{4})", flags=re.IGNORECASE)
_LABEL_FILE = r"label(\d{4})\.nii(?:\.gz)?"
#: How idc-index begins the folders of series that hold no scan.
_NOT_SCANS = ("SEG_", "RTSTRUCT_", "SR_")


def case_id(number: int) -> str:
    return f"pancreas_{number:04d}"


def find_pancreas_ct(images: Path, labels: Path, multi_organ: Path | None = None) -> Download:
    """The cases whose scan lies under ``images`` and whose label lies under ``labels``.

    They are paired by case number. ``multi_organ`` is the unpacked folder of Gibson
    et al. (``label_tcia_multiorgan``). Raises :class:`UserError` when a folder is
    missing or there is no case at all.
    """
    require_folder(images, "the folder of PANCREAS_0001, PANCREAS_0002, ...")
    scans = _scans(images)
    notices: list[str] = []
    truth = _labels(labels, "label files", notices)
    more = _labels(multi_organ, "multi-organ label files", notices) if multi_organ else {}
    refused = {case_id(number): found for number, found in scans.items() if isinstance(found, str)}
    cases = tuple(
        _case(number, scan, truth[number], more.get(number))
        for number, scan in sorted(scans.items())
        if number in truth and number in CASE_NUMBERS and not isinstance(scan, str)
    )
    notices += _notices(set(scans), set(truth), set(more) if multi_organ else None)
    if not refused:
        found = f"scans {ranges(scans) or 'none'}, labels {ranges(truth) or 'none'}"
        require_cases(cases, images, "scans and labels of the same case numbers", found=found)
    return Download(
        name=NAME,
        source=f"{SOURCE}; multi-organ labels {MULTI_ORGAN_SOURCE}" if multi_organ else SOURCE,
        licence=f"{LICENCE}; multi-organ labels CC-BY-4.0" if multi_organ else LICENCE,
        cases=cases,
        refused={case: reason for case, reason in refused.items() if int(case[-4:]) in CASE_NUMBERS},
        notices=tuple(notices),
    )


def _case(number: int, scan: Path, label: Path, more: Path | None) -> SourceCase:
    files = [LabelFile(path=label, table=LABELS, header_is_trusted=False)]
    if more is not None:
        files.append(LabelFile(path=more, table=MULTI_ORGAN_LABELS, header_is_trusted=False))
    name = case_id(number)
    return SourceCase(case_id=name, patient_id=name, image=scan, labels=tuple(files))


def _scans(images: Path) -> dict[int, Path | str]:
    """By case number: the folder of the series (or a NIfTI file), or why there is none to take."""
    found: dict[int, Path | str] = {}
    for number, entries in _entries_of_cases(images).items():
        scans = [scan for entry in entries for scan in ([entry] if entry.is_file() else _series(entry))]
        if len(scans) > 1:
            found[number] = f"expected one series, found {len(scans)}; keep the one that was labelled"
        elif scans:
            found[number] = scans[0]
    return found


def _entries_of_cases(images: Path) -> dict[int, list[Path]]:
    """Folders (or NIfTI files) named after a case, up to three levels down."""
    found: dict[int, list[Path]] = {}
    for folder, subfolders, files in os.walk(images):
        for name in sorted(subfolders):
            if match := _CASE_FOLDER.fullmatch(name):
                found.setdefault(int(match[1]), []).append(Path(folder, name))
        subfolders[:] = sorted(name for name in subfolders if not _CASE_FOLDER.fullmatch(name))
        if len(Path(folder).relative_to(images).parts) >= 3:
            subfolders.clear()
        converted, _ = numbered((Path(folder, name) for name in files), r"PANCREAS_(\d{4})\.nii(?:\.gz)?")
        for number, paths in converted.items():
            found.setdefault(number, []).extend(paths)
    return found


def _series(folder: Path) -> list[Path]:
    """The folders at or below ``folder`` that hold files and are not named as something else than a scan."""
    holding = [path for path in _folders_with_files(folder) if not path.name.startswith(_NOT_SCANS)]
    return sorted(holding)


def _folders_with_files(folder: Path) -> Iterator[Path]:
    for path, _, files in os.walk(folder):
        if any(not name.startswith(".") and name != "LICENSE" for name in files):
            yield Path(path)


def _labels(folder: Path, what: str, notices: list[str]) -> dict[int, Path]:
    """Label files by case number, in ``folder`` or the one folder in it that has them."""
    require_folder(folder, f"a folder of {what}")
    by_number, strangers = numbered(nifti_files(_only_child(folder)).values(), _LABEL_FILE)
    if strangers:
        names = ", ".join(path.name for path in strangers)
        notices.append(f"{what} that are not named label0001.nii.gz, left out: {names}")
    return {number: paths[0] for number, paths in by_number.items()}


def _only_child(folder: Path) -> Path:
    """``folder``, or its only subfolder where an archive was unpacked with its own folder."""
    if nifti_files(folder):
        return folder
    children = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return _only_child(children[0]) if len(children) == 1 else folder


def _notices(scans: set[int], labels: set[int], multi_organ: set[int] | None) -> Iterator[str]:
    everything = {"scans": scans, "labels": labels, "multi-organ labels": multi_organ or set()}
    for number, repeated in WITHDRAWN.items():
        holding = [what for what, numbers in everything.items() if number in numbers]
        if holding:
            yield f"case {number} is withdrawn, it repeats case {repeated}: left out ({', '.join(holding)})"
    known = set(CASE_NUMBERS)
    lists: Mapping[str, set[int]] = {
        "cases without scan and label": known - scans - labels,
        "labels without a scan": (labels & known) - scans,
        "scans without a label": (scans & known) - labels,
        "numbers that the data set does not have, left out": (
            (scans | labels | (multi_organ or set())) - known - set(WITHDRAWN)
        ),
        "multi-organ labels without a case": ((multi_organ or set()) & known) - (scans & labels),
    }
    for what, numbers in lists.items():
        if numbers:
            yield f"{what}: {ranges(numbers)}"
    if multi_organ is not None:
        yield f"multi-organ labels for {len(multi_organ & scans & labels & known)} cases"
