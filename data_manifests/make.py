"""Writes the lists of this folder anew: ``python data_manifests/make.py`` with ct_attn installed."""

from __future__ import annotations

import sys
from pathlib import Path

from ct_attn.datasets.pancreas_ct import CASE_NUMBERS, LABELS, LICENCE, NAME, SOURCE, case_id
from ct_attn.datasets.pancreas_ct_splits import SEED, SPLITS, draw_split
from ct_attn.labels import DISK_SCHEME
from ct_attn.manifest import Case, Manifest, write_manifest
from ct_attn.preparation.convert import image_path, label_path

DESCRIPTIONS = {
    "4-fold": "Cross-validation in 4 folds of 20 patients.",
    "5-fold": "Cross-validation in 5 folds of 16 patients.",
    "paper-style-59-21": (
        "In the style of the 61/21 split of Oktay et al. 2018, whose case lists are not published: of the 80 "
        "cases that are left of 82, 21 are drawn for the test. The other 59 are in 5 folds to validate on."
    ),
}


def split_manifest(name: str) -> Manifest:
    """All 80 cases as ``ct-attn prepare pancreas-ct --split NAME`` lists those it finds; without digests."""
    split = draw_split(name)
    cases = [
        Case(
            case_id=case,
            patient_id=case,
            image=image_path(case),
            label=label_path(case),
            labelled_organs=LABELS.labelled_organs,
            fold=split.folds.get(case),
        )
        for case in map(case_id, CASE_NUMBERS)
    ]
    return Manifest(
        name=f"{NAME}, {name}",
        description=f"{DESCRIPTIONS[name]} Drawn by patient, seed {SEED}.",
        source=SOURCE,
        licence=LICENCE,
        labels={"0": "background"} | {str(code): organ for organ, code in DISK_SCHEME.codes.items()},
        training=tuple(case for case in cases if case.case_id not in split.test),
        test=tuple(case for case in cases if case.case_id in split.test),
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name in SPLITS:
        write_manifest(split_manifest(name), folder / f"pancreas_ct_{name.replace('-', '_')}.json")
