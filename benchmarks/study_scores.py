"""What the study's folder holds of scores, and the numbers that its tables show."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_design import ORGANS, Training

from ct_attn.compare import Comparison, compare
from ct_attn.metrics.comparison import PairedComparison, holm
from ct_attn.metrics.statistics import mean_interval


def evaluation(output: Path, training: Training, condition: str = "usual") -> Path:
    return output / "trainings" / training.name / f"evaluation_{condition}"


def is_scored(output: Path, training: Training, condition: str = "usual") -> bool:
    return (output / "trainings" / training.name / f"scored_{condition}.json").is_file()


def trained(output: Path, training: Training) -> dict[str, Any]:
    """The record of the training."""
    file = output / "trainings" / training.name / "trained.json"
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def records(output: Path) -> Iterator[dict[str, Any]]:
    """Of every command that was run."""
    for file in sorted(output.rglob("*.json")):
        if file.with_suffix(".log").is_file() and ".doomed-" not in str(file):
            yield json.loads(file.read_text(encoding="utf-8"))


def scores_of(output: Path, training: Training, condition: str = "usual") -> list[dict[str, str]]:
    file = evaluation(output, training, condition) / "scores.csv"
    with file.open(encoding="utf-8") as rows:
        return [row for row in csv.DictReader(rows) if row["organ"] in ORGANS]


def values_of(
    output: Path, training: Training, organ: str, condition: str = "usual", measure: str = "dsc"
) -> list[float]:
    """Of the cases that have a number."""
    scores = scores_of(output, training, condition)
    return [float(row[measure]) for row in scores if row["organ"] == organ and row[measure]]


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean over cases, and its 95 % interval (BCa bootstrap); nan without values."""
    mean = statistics.fmean(values or [float("nan")])
    return (mean, *(mean_interval(values) or (mean, mean)))


def with_interval(values: Sequence[float]) -> str:
    mean, low, high = mean_and_interval(values)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def numbers(output: Path, own: Sequence[Training]) -> list[str]:
    """DSC and S2S per organ, S2S with how many organs it leaves out, and how many those are in all.

    Of one training DSC has its interval over the cases, of two seeds both means stand.
    """
    cells = []
    for organ in ORGANS:
        found = [values_of(output, training, organ) for training in own]
        cells.append(with_interval(found[0]) if len(found) == 1 else both([*map(statistics.fmean, found)]))
    for organ in ORGANS:
        found = [values_of(output, training, organ, measure="s2s_mm") for training in own]
        means = [statistics.fmean(values) for values in found if values]
        n_out = sum(sum(left_out(output, training, organ)) for training in own)
        distance = both(means, ".2f") if means else "none"
        cells.append(f"{distance}, without {n_out}" if n_out else distance)
    counts = [left_out(output, training, organ) for training in own for organ in ORGANS]
    n_scores = sum(len(scores_of(output, training)) for training in own)
    return [*cells, f"{sum(n for n, _ in counts)} + {sum(n for _, n in counts)} of {n_scores}"]


def both(means: Sequence[float], form: str = ".3f") -> str:
    """The mean over the seeds, and what each had."""
    seeds = f" ({', '.join(f'{mean:{form}}' for mean in means)})" if len(means) > 1 else ""
    return f"{statistics.fmean(means):{form}}{seeds}"


def left_out(output: Path, training: Training, organ: str) -> tuple[int, int]:
    """How many cases miss the organ, and how many have one that isn't there: neither has a distance."""
    states = [row["state"] for row in scores_of(output, training) if row["organ"] == organ]
    return states.count("missed"), states.count("spurious")


def compared(
    output: Path, runs: dict[str, list[Training]], name: str, condition: str = "usual"
) -> Comparison:
    """What ``ct-attn compare`` writes and finds; runs of one label are averaged case by case."""
    words = [
        f"{label}={evaluation(output, training, condition)}"
        for label, own in runs.items()
        for training in own
    ]
    return compare(words, output / "comparisons" / name, title=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """In DSC of an organ, of ``run`` less the run it is compared with, in a ``row`` of a table.

    ``mean`` over the cases and its 95 % interval (None without a case that both have); ``p`` is corrected.
    """

    row: str
    run: str
    organ: str
    spread: tuple[float, float, float] | None
    p: float

    @property
    def text(self) -> str:
        if self.spread is None:
            return "none"
        mean, low, high = self.spread
        return f"{mean:+.3f} ({low:+.3f} to {high:+.3f}){'*' if self.p < 0.05 else ''}"


def differences(rows: Mapping[str, Comparison], first: str) -> list[Difference]:
    """Of every other run less ``first``, in each of a table's ``rows``.

    The questions of a table are its runs against ``first`` in each row, so Holm's
    correction is over these and the organs, not over all pairs of runs.
    """
    asked = [
        (row, pair)
        for row, made in rows.items()
        for pair in made.pairs
        if pair.measure == "dsc" and first in (pair.first, pair.second)
    ]
    corrected = holm([pair.p for _, pair in asked])
    return [
        Difference(
            row=row,
            run=pair.second if pair.first == first else pair.first,
            organ=pair.organ,
            spread=spread_of(pair, sign=1 if pair.first == first else -1),
            p=p,
        )
        for (row, pair), p in zip(asked, corrected, strict=True)
    ]


def spread_of(pair: PairedComparison, *, sign: int) -> tuple[float, float, float] | None:
    if pair.difference is None or pair.low is None or pair.high is None:
        return None
    low, high = sorted((sign * pair.low, sign * pair.high))
    return sign * pair.difference, low, high


def by_run(found: Sequence[Difference]) -> dict[tuple[str, str], list[str]]:
    """(row, run) -> a cell for each organ."""
    texts: dict[tuple[str, str], dict[str, str]] = {}
    for one in found:
        texts.setdefault((one.row, one.run), {})[one.organ] = one.text
    return {key: [of_organ[organ] for organ in ORGANS] for key, of_organ in texts.items()}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
