"""How Pancreas-CT's 80 cases are split, whichever of them are on disk."""

from __future__ import annotations

from dataclasses import dataclass

from ct_attn.datasets.pancreas_ct import CASE_NUMBERS, case_id
from ct_attn.folds import draw_folds, in_drawn_order

#: Cross-validation, and the paper's style: a name and the folds of its training cases.
SPLITS = {"4-fold": 4, "5-fold": 5, "paper-style-59-21": 5}

#: Oktay et al. 2018 train on 61 cases of 82 and test on 21; which, they don't say. Of 80, 21
#: are drawn for the test likewise, which leaves 59. These have folds too, to validate on.
N_TEST = 21

SEED = 2018


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """``folds``: case id -> fold of the training cases; ``test``: the cases kept apart."""

    folds: dict[str, int]
    test: frozenset[str] = frozenset()


def draw_split(name: str, *, seed: int = SEED) -> Split:
    """The split ``name`` (of :data:`SPLITS`) of all 80 cases, each of which is another patient."""
    patient_of = {case_id(number): case_id(number) for number in CASE_NUMBERS}
    test: frozenset[str] = frozenset()
    if name == "paper-style-59-21":
        test = frozenset(in_drawn_order(patient_of, seed=seed)[:N_TEST])
    training = {case: patient for case, patient in patient_of.items() if case not in test}
    return Split(folds=draw_folds(training, SPLITS[name], seed=seed), test=test)
