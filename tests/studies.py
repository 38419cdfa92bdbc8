"""Simulated comparisons of runs, of which it is known what there is to find."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ct_attn.metrics.scores import CaseScore, State

RUNS = ("first", "second", "third")
ORGANS = ("pancreas", "spleen", "kidney")
SPREAD = {"dsc": 0.03, "s2s_mm": 0.3}


def simulated_study(
    random: np.random.Generator,
    gains: Mapping[tuple[str, str], float],
    *,
    n_cases: int = 24,
    missed: float = 0.06,
) -> dict[str, list[CaseScore]]:
    """Three runs of the same cases and organs; each misses an organ in ``missed`` of the cases.

    Cases differ by 0.1 in DSC and 1 mm in S2S, runs of a case at random by ``SPREAD``.
    ``gains`` says by run and organ how much better it is, in multiples of ``SPREAD``.
    """
    runs: dict[str, list[CaseScore]] = {run: [] for run in RUNS}
    for organ in ORGANS:
        difficulty = random.normal(size=n_cases)
        for run, scores in runs.items():
            quality = random.normal(size=n_cases) + gains.get((run, organ), 0.0)
            found = random.random(n_cases) >= missed
            for number in range(n_cases):
                scores.append(
                    CaseScore(
                        case_id=f"case{number}",
                        organ=organ,
                        state=State.SCORED,
                        dsc=float(0.7 - 0.1 * difficulty[number] + SPREAD["dsc"] * quality[number]),
                        s2s_mm=float(5 + difficulty[number] - SPREAD["s2s_mm"] * quality[number]),
                        truth_ml=100.0 + number,
                        predicted_ml=100.0,
                    )
                    if found[number]
                    else CaseScore(
                        case_id=f"case{number}",
                        organ=organ,
                        state=State.MISSED,
                        dsc=0.0,
                        truth_ml=100.0 + number,
                        predicted_ml=0.0,
                    )
                )
    return runs
