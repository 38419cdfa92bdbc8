"""Medical Segmentation Decathlon: Task07 (pancreas and tumour) and Task09 (spleen).

Antonelli et al. 2022, https://doi.org/10.1038/s41467-022-30695-9
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ct_attn.datasets.source import (
    CodeTable,
    Download,
    nifti_files,
    pair_by_stem,
    require_cases,
    require_folder,
)
from ct_attn.errors import UserError

LICENCE = "CC-BY-SA-4.0"

#: By what ``dataset.json`` calls its labels. A tumour of the pancreas is part of the pancreas.
TABLES: Mapping[tuple[tuple[str, str], ...], tuple[str, CodeTable]] = {
    (("0", "background"), ("1", "pancreas"), ("2", "cancer")): (
        "MSD Task07 Pancreas",
        CodeTable(organs={1: "pancreas", 2: "pancreas"}),
    ),
    (("0", "background"), ("1", "spleen")): ("MSD Task09 Spleen", CodeTable(organs={1: "spleen"})),
}


def find_msd(folder: Path) -> Download:
    """The training cases of the task in ``folder`` (``dataset.json``, ``imagesTr``, ``labelsTr``).

    Raises :class:`UserError` when the layout or the task is another one.
    """
    require_folder(folder, "the folder of an MSD task")
    content = read_dataset_json(folder)
    labels = content.get("labels")
    key = tuple(sorted((str(code), str(name)) for code, name in labels.items())) if labels else ()
    if key not in TABLES:
        raise UserError(
            folder / "dataset.json",
            expected="the labels of Task07 (pancreas, cancer) or Task09 (spleen)",
            found=", ".join(name for _, name in key) or "none",
            remedy="use ct-attn prepare folder with --labels-map for another task",
        )
    name, table = TABLES[key]
    images, truths = nifti_files(folder / "imagesTr"), nifti_files(folder / "labelsTr")
    cases, notices = pair_by_stem(images, truths, table)
    require_cases(cases, folder, "scans in imagesTr and labels in labelsTr")
    listed = {_stem(entry["image"]) for entry in content.get("training", ()) if isinstance(entry, dict)}
    if missing := sorted(listed - {case.case_id for case in cases}):
        notices.append(f"listed in dataset.json but not complete on disk: {', '.join(missing)}")
    if extra := sorted({case.case_id for case in cases} - listed):
        notices.append(f"on disk but not listed in dataset.json, left out: {', '.join(extra)}")
    return Download(
        name=name,
        source="http://medicaldecathlon.com",
        licence=LICENCE,
        cases=tuple(case for case in cases if case.case_id in listed),
        notices=tuple(notices),
    )


def read_dataset_json(folder: Path) -> dict[str, Any]:
    """``dataset.json`` of ``folder``; raises :class:`UserError` unless it is a JSON object."""
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = "none" if isinstance(error, OSError) else "damaged JSON"
        remedy = "name the unpacked folder of the task"
        raise UserError(path, expected="a dataset.json", found=found, remedy=remedy) from error
    if not isinstance(content, dict) or not isinstance(content.get("labels", {}), dict):
        remedy = "unpack the archive again"
        raise UserError(path, expected="a JSON object with labels", found="another form", remedy=remedy)
    return content


def _stem(listed: object) -> str:
    return Path(str(listed)).name.removesuffix(".gz").removesuffix(".nii")
