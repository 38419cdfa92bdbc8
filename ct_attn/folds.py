"""Which case goes into which fold: by patient, by seed, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping


def draw_folds(patient_of: Mapping[str, str], n_folds: int, *, seed: int) -> dict[str, int]:
    """The fold of each case id in ``patient_of`` (case id -> patient id).

    All cases of a patient share a fold. Patients come in the order of a digest of seed
    and patient id, each into the fold with the fewest cases so far; so the sizes
    differ as little as the patients allow. Raises ``ValueError`` unless there are
    two folds at least and a patient for each.
    """
    cases_of: dict[str, list[str]] = {}
    for case_id, patient_id in patient_of.items():
        cases_of.setdefault(patient_id, []).append(case_id)
    if not 2 <= n_folds <= len(cases_of):
        raise ValueError(f"{len(cases_of)} patients cannot be put into {n_folds} folds of at least one")
    sizes = [0] * n_folds
    folds: dict[str, int] = {}
    for patient_id in in_drawn_order(cases_of, seed=seed):
        fold = sizes.index(min(sizes))
        sizes[fold] += len(cases_of[patient_id])
        folds |= dict.fromkeys(cases_of[patient_id], fold)
    return {case_id: folds[case_id] for case_id in patient_of}


def draw_test(patient_of: Mapping[str, str], share: float, *, seed: int) -> frozenset[str]:
    """The case ids of ``share`` of the cases in ``patient_of``, all cases of a patient or none.

    Patients come in the same order as for folds; one with more cases than are still wanted is
    passed over. Raises ``ValueError`` unless ``share`` is at least 0 and below 1, and where a share
    above 0 comes to no patient.
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share is at least 0 and below 1, got {share:g}")
    wanted = round(share * len(patient_of))
    test: set[str] = set()
    for patient_id in in_drawn_order(set(patient_of.values()), seed=seed):
        cases = {case_id for case_id, patient in patient_of.items() if patient == patient_id}
        if len(test) + len(cases) <= wanted:
            test |= cases
    if share and not test:
        raise ValueError(f"{share:g} of {len(patient_of)} cases is {wanted}: less than any patient has")
    return frozenset(test)


def in_drawn_order(patient_ids: Collection[str], *, seed: int) -> list[str]:
    """``patient_ids``, shuffled by ``seed``; no random generator whose stream may change is used."""

    def key(patient_id: str) -> str:
        return hashlib.sha256(f"{seed}:{patient_id}".encode()).hexdigest()

    return sorted(patient_ids, key=key)
