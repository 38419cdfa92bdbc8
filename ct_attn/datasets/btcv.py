"""BTCV, Beyond the Cranial Vault, abdomen: ``img0001.nii.gz`` and ``label0001.nii.gz``.

https://doi.org/10.7303/syn3193805; ``RawData/Training/{img,label}`` as unpacked, or any
other folders that hold these names.
"""

from __future__ import annotations

from pathlib import Path

from ct_attn.datasets.source import (
    CodeTable,
    Download,
    LabelFile,
    SourceCase,
    numbered,
    ranges,
    require_cases,
    require_folder,
)

LABELS = CodeTable(
    organs={1: "spleen", 2: "right_kidney", 3: "left_kidney", 11: "pancreas"},
    ignored={
        4: "gallbladder", 5: "oesophagus", 6: "liver", 7: "stomach", 8: "aorta", 9: "inferior vena cava",
        10: "portal and splenic vein", 12: "right adrenal gland", 13: "left adrenal gland",
    },
)  # fmt: skip


def find_btcv(folder: Path) -> Download:
    """The cases under ``folder`` that have a scan and a label, paired by number.

    The scans of the test set have no public label; they are listed. Raises
    :class:`UserError` when there is no case.
    """
    require_folder(folder, "the unpacked folder of BTCV")
    files = sorted(path for path in folder.rglob("*.nii*") if path.is_file() and path.name[0] != ".")
    images, _ = numbered(files, r"img(\d{4})\.nii(?:\.gz)?")
    labels, _ = numbered(files, r"label(\d{4})\.nii(?:\.gz)?")
    refused = {
        f"btcv_{number:04d}": "expected one scan and one label, found several; keep one copy"
        for number in sorted(set(images) & set(labels))
        if len(images[number]) > 1 or len(labels[number]) > 1
    }
    cases = tuple(
        SourceCase(
            case_id=name,
            patient_id=name,
            image=images[number][0],
            labels=(LabelFile(path=labels[number][0], table=LABELS),),
        )
        for number in sorted(set(images) & set(labels))
        if (name := f"btcv_{number:04d}") not in refused
    )
    require_cases(cases, folder, "img0001.nii.gz and label0001.nii.gz, and so on")
    notices = [
        f"{what}: {ranges(numbers)}"
        for what, numbers in (
            ("scans without a label", set(images) - set(labels)),
            ("labels without a scan", set(labels) - set(images)),
        )
        if numbers
    ]
    return Download(
        name="BTCV abdomen",
        source="https://doi.org/10.7303/syn3193805",
        licence="Synapse terms of use",
        cases=cases,
        refused=refused,
        notices=tuple(notices),
    )
