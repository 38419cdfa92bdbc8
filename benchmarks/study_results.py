"""Tables and figures of ``benchmarks/study.py``, by the statistics of ``ct-attn compare``."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from machine import describe
from matplotlib.figure import Figure
from study_design import (
    ASKED,
    ATTENTION,
    BY_NUMBER,
    BY_SPACING,
    COHORT,
    CONDITIONS,
    MULTI,
    N_VALIDATION,
    NETWORKS,
    NUMBERS,
    ORGANS,
    QUEUE,
    ROOT,
    STARTS,
    UNET,
    USUAL_CASES,
    Form,
    Training,
    key_of,
)

from ct_attn.compare import Comparison, compare
from ct_attn.metrics.comparison import PairedComparison
from ct_attn.network.build import build_network
from ct_attn.recipe import read_recipe

RESULTS = ROOT / "benchmarks" / "results" / "study"
#: Legible to colour-blind readers (Okabe and Ito 2008).
COLOURS = {"pancreas": "#d55e00", "spleen": "#0072b2", "kidney": "#009e73"}
STYLES = ("-", "--", ":")


def write_results(output: Path, *, minutes: float) -> None:
    """``study.md``, its figures, and the scores of every case, for what ``output`` holds."""
    done = {training.name for training in QUEUE if (evaluation(output, training) / "scores.csv").is_file()}
    if not done:
        print("nothing is scored yet")
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_scores(output, done)
    head = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    parts = [
        f"{describe()}; commit {commit}. Cohort `{' '.join(COHORT)}`, of which {N_VALIDATION} are for "
        "validation. "
        f"Every training has the steps that fill {minutes:g} minutes on the idle machine, "
        f"{len(done)} of {len(QUEUE)} trainings are done; they took {hours(output, done):.1f} hours.",
        networks(output, done),
        by_number(output, done),
        worse_scans(output),
        by_spacing(output, done),
        starts(output, done),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (RESULTS / "study.md").write_text(text, encoding="utf-8")
    print(text)


def evaluation(output: Path, training: Training, condition: str = "usual") -> Path:
    return output / "trainings" / training.name / f"evaluation_{condition}"


def hours(output: Path, done: Iterable[str]) -> float:
    return sum(trained(output, name)["wall_s"] for name in done) / 3600


def trained(output: Path, name: str) -> dict[str, float]:
    record: dict[str, float] = json.loads(
        (output / "trainings" / name / "trained.json").read_text(encoding="utf-8")
    )
    return record


def networks(output: Path, done: set[str]) -> str:
    """Every form against the U-Net, case by case."""
    by_form: dict[str, list[Training]] = {}
    for training in NETWORKS:
        if training.name in done:
            by_form.setdefault(training.form.label, []).append(training)
    if UNET.label not in by_form or len(by_form) < 2:
        return ""
    made = compared(output, by_form, "networks")
    header = ["network", "parameters", "steps", "seeds", *(f"DSC {organ}" for organ in ORGANS)]
    header += [f"S2S {organ}, mm" for organ in ORGANS]
    header += ["missed + spurious", *(f"less U-Net: {organ}" for organ in ORGANS)]
    rows = []
    for label, own in by_form.items():
        steps = trained(output, own[0].name)["steps"]
        first = [label, f"{parameters(own[0].form):,}", f"{steps:.0f}", str(len(own))]
        rows.append([*first, *numbers(output, own), *differences(made, UNET.label, label)])
    return (
        "## Networks, equal time\n\nDSC and S2S: mean over the test cases, then over the seeds; with two "
        "seeds, both. The last columns: difference in DSC from the U-Net, paired by case, with its 95 % "
        "interval (BCa bootstrap); * where Wilcoxon's test gives p < 0.05 after Holm's correction over all "
        "pairs of the table."
        f"\n\n{markdown([header, *rows])}"
    )


def by_number(output: Path, done: set[str]) -> str:
    """Curves over the number of training cases, and their table."""
    usual = [Training(form=form) for form in (UNET, MULTI)]
    there = [training for training in (*usual, *BY_NUMBER) if training.name in done]
    if not any(training.cases != USUAL_CASES for training in there):
        return ""
    rows = [["training cases", "network", *(f"DSC {organ}" for organ in ORGANS), "missed + spurious"]]
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cases in NUMBERS:
        for training in (one for one in there if one.cases == cases):
            dsc = means(output, training)
            missed = numbers(output, [training])[-1]
            rows.append([str(cases), training.form.label, *(f"{dsc[organ]:.3f}" for organ in ORGANS), missed])
            for organ in ORGANS:
                curves.setdefault((training.form.label, organ), []).append((cases, dsc[organ]))
    draw("by_number", curves, "training cases", log=True)
    made = compared_by_number(output, there)
    return (
        "## Number of training cases, equal time\n\n![](by_number.png)\n\n"
        f"{markdown(rows)}\n\n{made}".rstrip()
    )


def compared_by_number(output: Path, there: Sequence[Training]) -> str:
    """What attention gains at every number of cases."""
    rows = [["training cases", *(f"two gates less U-Net: {organ}" for organ in ORGANS)]]
    for cases in NUMBERS:
        own = {training.form.label: [training] for training in there if training.cases == cases}
        if len(own) == 2:
            made = compared(output, own, f"cases_{cases}")
            rows.append([str(cases), *differences(made, UNET.label, MULTI.label)])
    return markdown(rows)


def worse_scans(output: Path) -> str:
    """DSC on worse copies of the test cases."""
    rows = [["scans", *(f"{training.form.label}: {organ}" for training in ASKED for organ in ORGANS)]]
    for condition in ("usual", *CONDITIONS):
        cells = []
        for training in ASKED:
            folder = evaluation(output, training, key_of(condition))
            if not (folder / "scores.csv").is_file():
                break
            dsc = means(output, training, key_of(condition))
            cells += [f"{dsc[organ]:.3f}" for organ in ORGANS]
        else:
            rows.append([condition, *cells])
    if len(rows) < 3:
        return ""
    return (
        "## Worse scans, without training again\n\nMean DSC over the test cases; a missed organ counts 0."
        f"\n\n{markdown(rows)}"
    )


def by_spacing(output: Path, done: set[str]) -> str:
    there = [training for training in (Training(form=MULTI), *BY_SPACING) if training.name in done]
    return (
        "## Finer input, equal time\n\nThe usual input has 4 mm. A patch stays 64 x 64 x 48 voxels.\n\n"
        + small_table(output, there)
        if len(there) > 1
        else ""
    )


def starts(output: Path, done: set[str]) -> str:
    there = [training for training in (Training(form=ATTENTION), *STARTS) if training.name in done]
    return (
        "## Ways to begin, equal time\n\n" + small_table(output, there, scratch=Training(form=ATTENTION))
        if len(there) > 1
        else ""
    )


def small_table(output: Path, there: Sequence[Training], scratch: Training | None = None) -> str:
    """One seed each, compared with the first."""
    labels = {training.name: training.form.label for training in there}
    if scratch is not None:
        labels[scratch.name] = f"{scratch.form.label}, from scratch"
        labels = {
            training.name: f"{labels[training.name]}, from the U-Net's weights"
            if training.start is not None and training.form == scratch.form
            else labels[training.name]
            for training in there
        }
    made = compared(output, {labels[training.name]: [training] for training in there}, key_of(there[1].name))
    first = labels[there[0].name]
    header = ["network", "steps", *(f"DSC {organ}" for organ in ORGANS)]
    header += [f"S2S {organ}, mm" for organ in ORGANS] + [
        "missed + spurious",
        *(f"less first: {organ}" for organ in ORGANS),
    ]
    rows = [
        [
            labels[training.name],
            f"{trained(output, training.name)['steps']:.0f}",
            *numbers(output, [training]),
            *differences(made, first, labels[training.name]),
        ]
        for training in there
    ]
    return markdown([header, *rows])


def compared(output: Path, runs: dict[str, list[Training]], name: str) -> Comparison:
    """What ``ct-attn compare`` writes and finds; runs of one label are averaged case by case."""
    words = [f"{label}={evaluation(output, training)}" for label, own in runs.items() for training in own]
    return compare(words, output / "comparisons" / name, title=name)


def differences(made: Comparison, first: str, second: str) -> list[str]:
    """In DSC, per organ, of ``second`` less ``first``."""
    return [difference(made.pairs, organ, first, second) for organ in ORGANS]


def difference(pairs: Iterable[PairedComparison], organ: str, first: str, second: str) -> str:
    for pair in pairs:
        if pair.organ == organ and pair.measure == "dsc" and {pair.first, pair.second} == {first, second}:
            if pair.difference is None or pair.low is None or pair.high is None:
                return "none"
            sign = 1 if pair.first == first else -1
            low, high = sorted((sign * pair.low, sign * pair.high))
            star = "*" if pair.p_holm < 0.05 else ""
            return f"{sign * pair.difference:+.3f} ({low:+.3f} to {high:+.3f}){star}"
    return ""


def scores_of(output: Path, training: Training, condition: str = "usual") -> list[dict[str, str]]:
    file = evaluation(output, training, condition) / "scores.csv"
    with file.open(encoding="utf-8") as rows:
        return [row for row in csv.DictReader(rows) if row["organ"] in ORGANS]


def means(
    output: Path, training: Training, condition: str = "usual", measure: str = "dsc"
) -> dict[str, float]:
    """Per organ, over the cases that have a number."""
    scores = scores_of(output, training, condition)
    return {
        organ: statistics.fmean(
            [float(row[measure]) for row in scores if row["organ"] == organ and row[measure]]
            or [float("nan")]
        )
        for organ in ORGANS
    }


def numbers(output: Path, own: Sequence[Training]) -> list[str]:
    """DSC and S2S per organ, S2S with how many organs it leaves out, and how many those are in all."""
    cells = []
    for measure, form in (("dsc", ".3f"), ("s2s_mm", ".2f")):
        found = [means(output, training, measure=measure) for training in own]
        for organ in ORGANS:
            values = [mean[organ] for mean in found]
            seeds = f" ({', '.join(f'{value:{form}}' for value in values)})" if len(values) > 1 else ""
            n_out = 0 if measure == "dsc" else sum(left_out(output, own, organ))
            cells.append(
                f"{statistics.fmean(values):{form}}{seeds}" + (f", without {n_out}" if n_out else "")
            )
    missed, spurious = (
        sum(count) for count in zip(*(left_out(output, own, organ) for organ in ORGANS), strict=True)
    )
    n_scores = sum(len(scores_of(output, training)) for training in own)
    return [*cells, f"{missed} + {spurious} of {n_scores}"]


def left_out(output: Path, own: Sequence[Training], organ: str) -> tuple[int, int]:
    """How many cases miss the organ, and how many have one that isn't there: neither has a distance."""
    states = [
        row["state"] for training in own for row in scores_of(output, training) if row["organ"] == organ
    ]
    return states.count("missed"), states.count("spurious")


def parameters(form: Form) -> int:
    """Trainable ones, with the recipe's own channels and classes."""
    recipe = read_recipe(form.recipe, form.changes)
    channels = 1 if recipe.slices is None else recipe.slices.neighbours
    network = build_network(recipe.network, in_channels=channels, n_classes=recipe.n_classes)
    return sum(parameter.numel() for parameter in network.parameters())


def draw(
    name: str, curves: dict[tuple[str, str], list[tuple[float, float]]], axis: str, *, log: bool
) -> None:
    """DSC over ``axis``: a colour for each organ, a style for each network."""
    mpl.rcParams["svg.hashsalt"] = "study"
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    plot = figure.subplots()
    names = list(dict.fromkeys(label for label, _ in curves))
    for (label, organ), points in curves.items():
        x, y = zip(*sorted(points), strict=True)
        plot.plot(
            x, y, STYLES[names.index(label)], color=COLOURS[organ], marker="o", label=f"{organ}, {label}"
        )
    if log:
        ticks = sorted({x for points in curves.values() for x, _ in points})
        plot.set_xscale("log")
        plot.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        plot.minorticks_off()
    plot.set_xlabel(axis)
    plot.set_ylabel("DSC, mean over the test cases")
    plot.grid(alpha=0.3)
    plot.legend(fontsize=7)
    figure.savefig(RESULTS / f"{name}.png", dpi=130)


def write_scores(output: Path, done: set[str]) -> None:
    """Every case, organ, training and condition, with the steps each training made."""
    rows: list[dict[str, Any]] = []
    for training in QUEUE:
        if training.name not in done:
            continue
        facts = {"training": training.name, "steps": int(trained(output, training.name)["steps"])}
        for condition in ("usual", *CONDITIONS):
            if (evaluation(output, training, key_of(condition)) / "scores.csv").is_file():
                kept = ("case_id", "organ", "state", "dsc", "s2s_mm")
                rows += [
                    {**facts, "condition": condition, **{key: row[key] for key in kept}}
                    for row in scores_of(output, training, key_of(condition))
                ]
    with (RESULTS / "scores.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
