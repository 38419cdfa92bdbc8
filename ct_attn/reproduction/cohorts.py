"""Manifests divided as the paper's cohorts were: by the same shares, by patient, seeded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ct_attn.datasets.pancreas_ct_splits import SEED
from ct_attn.errors import UserError
from ct_attn.folds import draw_folds, in_drawn_order
from ct_attn.manifest import Case, Manifest
from ct_attn.preprocessing import canonical_axes
from ct_attn.scan_io.nifti import read_grid
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Shape3

#: One case in so many of the training side chooses the best epoch, which the paper does not say how it did.
VALIDATION_SHARE = 10
#: What the manifests of the synthetic cohort name as their source.
PHANTOM = "ct-attn phantom"


def divide(manifest: Manifest, path: Path, train_test: str) -> Manifest:
    """The cases of ``manifest``, read from ``path``, divided into training and test like ``train_test``.

    ``120/30`` stands for four fifths: patients come in an order drawn from a fixed seed,
    the first ones train. Of the training side about a tenth, fold 0, is for validation.
    Raises :class:`UserError` with too few patients.
    """
    cases_of: dict[str, list[Case]] = {}
    for case in manifest.cases:
        cases_of.setdefault(case.patient_id, []).append(case)
    n_train, n_test = (int(number) for number in train_test.split("/"))
    n_patients = len(cases_of)
    n_training = min(max(2, round(n_patients * n_train / (n_train + n_test))), n_patients - 1)
    if n_training < 2:
        raise UserError(
            path, expected="three patients at least, two to train on and one to test on",
            found=str(n_patients), remedy="give a manifest with more",
        )  # fmt: skip
    order = in_drawn_order(cases_of, seed=SEED)
    training = [case for patient in order[:n_training] for case in cases_of[patient]]
    test = [case for patient in order[n_training:] for case in cases_of[patient]]
    folds = draw_folds(
        {case.case_id: case.patient_id for case in training}, min(VALIDATION_SHARE, n_training), seed=SEED
    )
    return manifest.model_copy(
        update={
            "name": f"{manifest.name}, divided like {train_test}",
            "training": tuple(
                case.model_copy(update={"fold": folds[case.case_id]})
                for case in sorted(training, key=lambda case: case.case_id)
            ),
            "test": tuple(
                case.model_copy(update={"fold": None}) for case in sorted(test, key=lambda case: case.case_id)
            ),
        }
    )


def moved(manifest: Manifest, path: Path, folder: Path) -> Manifest:
    """``manifest`` in ``path``, with its files as seen from ``folder``.

    Relative, like all that is written down: an absolute path tells whose machine it was.
    """
    root, target = path.parent.resolve(), folder.resolve()

    def seen_from_there(file: str) -> str:
        place = root / file
        # The file itself may be a link (git-annex), whose own name is the one that tells its format.
        return os.path.relpath(place.parent.resolve() / place.name, target)

    def moved_case(case: Case) -> Case:
        return case.model_copy(
            update={"image": seen_from_there(case.image), "label": seen_from_there(case.label)}
        )

    return manifest.model_copy(
        update={
            "training": tuple(map(moved_case, manifest.training)),
            "test": tuple(map(moved_case, manifest.test)),
        }
    )


def require_apart(source: Manifest, source_path: Path, target: Manifest, target_path: Path) -> None:
    """Refuse a source that holds a scan of the target: what is tested must not have been trained on.

    Scans are the same by place, by the digest of their file, or by their voxels, in whatever
    file and orientation. Voxels are read where scans of both sides have as many of them
    along R, A and S; files that are not there are for others to miss.
    """

    def scans(manifest: Manifest, path: Path) -> dict[str, str]:
        found = {str((path.parent / case.image).resolve()): case.case_id for case in manifest.cases}
        return found | {case.image_digest: case.case_id for case in manifest.cases if case.image_digest}

    ours, theirs = scans(source, source_path), scans(target, target_path)
    shared = sorted(
        {ours[scan] for scan in ours.keys() & theirs.keys()}
        | _of_same_voxels(_by_shape(source, source_path), _by_shape(target, target_path))
    )
    if shared:
        raise UserError(
            source_path, expected=f"no scan of {target_path}", found=f"{len(shared)}, {shared[0]} first",
            remedy="give another --source",
        )  # fmt: skip


def _by_shape(manifest: Manifest, path: Path) -> dict[Shape3, dict[str, Path]]:
    """Scans by case, by their voxels along R, A and S as the header of their label map has them."""
    found: dict[Shape3, dict[str, Path]] = {}
    for case in manifest.cases:
        image, label = path.parent / case.image, path.parent / case.label
        if image.exists() and label.is_file():
            grid = read_grid(label)
            r, a, s = (grid.shape[axis] for axis in canonical_axes(grid)[0])
            found.setdefault((r, a, s), {})[case.case_id] = image
    return found


def _of_same_voxels(
    ours: Mapping[Shape3, Mapping[str, Path]], theirs: Mapping[Shape3, Mapping[str, Path]]
) -> set[str]:
    """The cases of ``ours`` whose voxels are those of a scan in ``theirs``."""
    found = set()
    for shape in ours.keys() & theirs.keys():
        known = {_voxel_digest(scan) for scan in theirs[shape].values()}
        found |= {case_id for case_id, scan in ours[shape].items() if _voxel_digest(scan) in known}
    return found


def _voxel_digest(scan: Path) -> str:
    """A digest of the values of ``scan`` with its axes along R, A and S."""
    volume = read_scan(scan)
    axes, flipped = canonical_axes(volume.grid)
    hu = np.flip(volume.hu.transpose(axes), tuple(axis for axis in range(3) if flipped[axis]))
    digest = hashlib.sha256(str(hu.shape).encode())
    for index in range(hu.shape[2]):  # by slice: a scan is large
        digest.update(np.ascontiguousarray(hu[:, :, index], dtype="<f4").tobytes())
    return digest.hexdigest()


def describe(manifest: Manifest) -> str:
    """Which data a figure comes from, in words for its table."""
    drawn = " Drawings by a program, no patients: these figures say nothing of real scans."
    return f"{manifest.name} ({manifest.source})." + (drawn if PHANTOM in manifest.source else "")
