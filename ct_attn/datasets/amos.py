"""AMOS 2022: ``dataset.json``, ``imagesTr``/``labelsTr`` and ``imagesVa``/``labelsVa``.

Cases with numbers below 500 are CT, the others MRI (its readme says so).
Ji et al. 2022, https://doi.org/10.5281/zenodo.7155725
"""

from __future__ import annotations

import re
from pathlib import Path

from ct_attn.datasets.msd import read_dataset_json
from ct_attn.datasets.source import (
    CodeTable,
    Download,
    SourceCase,
    nifti_files,
    pair_by_stem,
    require_cases,
    require_folder,
)
from ct_attn.errors import UserError

LABELS = CodeTable(
    organs={1: "spleen", 2: "right_kidney", 3: "left_kidney", 10: "pancreas"},
    ignored={
        4: "gallbladder", 5: "oesophagus", 6: "liver", 7: "stomach", 8: "aorta", 9: "inferior vena cava",
        11: "right adrenal gland", 12: "left adrenal gland", 13: "duodenum", 14: "bladder",
        15: "prostate or uterus",
    },
)  # fmt: skip

FIRST_MRI_NUMBER = 500
#: What ``dataset.json`` must say of the codes that are used.
_STATED = {"1": "spleen", "2": "right kidney", "3": "left kidney", "10": "pancreas"}


def find_amos(folder: Path) -> Download:
    """The CT cases in ``folder`` that have a label, of the training and the validation set.

    Raises :class:`UserError` when the layout or the meaning of the codes is another one.
    """
    require_folder(folder, "the unpacked folder of AMOS 2022")
    stated = read_dataset_json(folder).get("labels", {})
    wrong = [code for code, name in _STATED.items() if str(stated.get(code, "")).strip() != name]
    if wrong:
        raise UserError(
            folder / "dataset.json",
            expected="the labels of AMOS 2022 (1 spleen, 2 right kidney, 3 left kidney, 10 pancreas)",
            found=", ".join(f"{code} {stated.get(code, 'missing')}" for code in wrong),
            remedy="use ct-attn prepare folder with --labels-map for another data set",
        )
    cases: list[SourceCase] = []
    notices: list[str] = []
    for part in ("Tr", "Va"):
        if (folder / f"images{part}").is_dir():
            images, labels = (nifti_files(folder / f"{kind}{part}") for kind in ("images", "labels"))
            found, said = pair_by_stem(images, labels, LABELS)
            cases += found
            notices += [f"{part}: {notice}" for notice in said]
    scans = [case for case in cases if _number(case.case_id) < FIRST_MRI_NUMBER]
    if len(scans) < len(cases):
        notices.append(f"{len(cases) - len(scans)} MRI cases left out")
    require_cases(scans, folder, "CT scans in imagesTr and labels in labelsTr")
    return Download(
        name="AMOS 2022, CT",
        source="https://doi.org/10.5281/zenodo.7155725",
        licence="CC-BY-4.0",
        cases=tuple(scans),
        notices=tuple(notices),
    )


def _number(case_id: str) -> int:
    """The number in ``amos_0001``; what has none counts as no CT."""
    match = re.fullmatch(r"amos_(\d{4})", case_id)
    return int(match[1]) if match else FIRST_MRI_NUMBER
