"""Tables and figures of ``benchmarks/study.py``, by the statistics of ``ct-attn compare``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study_design import (
    ASKED,
    ATTENTION,
    BY_NUMBER,
    BY_SPACING,
    COHORT,
    CONDITIONS,
    MULTI,
    NETWORKS,
    NUMBERS,
    ORGANS,
    QUEUE,
    ROOT,
    SLICES_2_5D,
    SPACINGS_MM,
    STARTS,
    UNET,
    USUAL_CASES,
    Form,
    Training,
    key_of,
)
from study_figures import Spread, draw, draw_differences
from study_scores import (
    by_run,
    compared,
    differences,
    is_scored,
    left_out,
    markdown,
    mean_and_interval,
    numbers,
    records,
    scores_of,
    trained,
    values_of,
    with_interval,
)

from ct_attn.network.build import build_network
from ct_attn.recipe import read_recipe

RESULTS = ROOT / "benchmarks" / "results" / "study"
PAGE = ROOT / "docs" / "study.md"
#: Between these the page has the tables; what they mean is written by people.
BEGIN, END = "<!-- what benchmarks/study.py found -->\n", "<!-- end of what it found -->\n"
STAR = "* where Wilcoxon's test gives p < 0.05 after Holm's correction over the table's differences."
INTERVAL = (
    "95 % intervals are BCa bootstrap over the test cases: they hold for this training, not for another seed."
)


def write_results(output: Path, *, minutes: float, full_size: bool) -> None:
    """``study.md``, its figures, and the scores of every case, for what ``output`` holds; all in the page."""
    done = [training for training in QUEUE if is_scored(output, training)]
    if not done:
        print("nothing is scored yet")
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_scores(output, done)
    parts = [
        about(output, done, minutes=minutes, full_size=full_size),
        networks(output, done),
        by_number(output, done),
        worse_scans(output),
        by_spacing(output, done, full_size=full_size),
        starts(output, done),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (RESULTS / "study.md").write_text(text, encoding="utf-8")
    put_into_page(text)
    print(text)


def put_into_page(text: str) -> None:
    """Replace what the page has between the marks."""
    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{PAGE.name} has no marks: the tables are not put into it")
        return
    shown = text.replace("](", "](../benchmarks/results/study/").replace("\n## ", "\n#### ")
    PAGE.write_text(f"{before}{BEGIN}\n{shown}\n{END}{after}", encoding="utf-8")


def about(output: Path, done: Sequence[Training], *, minutes: float, full_size: bool) -> str:
    """On what, by which commit, how long."""
    every = list(records(output))
    machines, commits = (
        sorted({record.get(key, "unknown") for record in every}) for key in ("machine", "commit")
    )
    sizes = "; ".join(
        f"{what} in {size_of(form, full_size=full_size)}"
        for what, form in (("volumes", UNET), ("slices", SLICES_2_5D))
    )
    jobs = max(record.get("jobs", 1) for record in every)
    return (
        f"{'; '.join(machines)}; commit {', '.join(commits)}. Cohort `{' '.join(COHORT)}`; {sizes}. Every "
        f"training has the steps that fill {minutes:g} minutes on the idle machine, {jobs} of them at a time "
        f"for {minutes * jobs:g}. {len(done)} of {len(QUEUE)} trainings are done; all commands together took "
        f"{sum(record['wall_s'] for record in every) / 3600:.1f} hours, {jobs} at a time. {INTERVAL}"
    )


def size_of(form: Form, *, full_size: bool) -> str:
    recipe = read_recipe(form.recipe, form.all_changes(full_size=full_size))
    patch = " x ".join(map(str, recipe.training.patch_size))
    steps = " x ".join("own" if step is None else f"{step:g}" for step in recipe.preprocessing.spacing_mm)
    return f"{recipe.training.batch_size} patches of {patch} voxels of {steps} mm"


def networks(output: Path, done: Sequence[Training]) -> str:
    """Every form against the U-Net, case by case."""
    by_form: dict[str, list[Training]] = {}
    for training in NETWORKS:
        if training in done:
            by_form.setdefault(training.form.label, []).append(training)
    if UNET.label not in by_form or len(by_form) < 2:
        return ""
    found = differences({"": compared(output, by_form, "networks")}, UNET.label)
    draw_differences(
        RESULTS / "networks.png", found, runs=[label for label in by_form if label != UNET.label]
    )
    less_unet = by_run(found)
    overlap = [["network", "parameters", "steps", "seeds", *(f"DSC {organ}" for organ in ORGANS)]]
    overlap[0].append("missed + spurious")
    distance = [["network", *(f"S2S {organ}, mm" for organ in ORGANS)]]
    distance[0] += [f"DSC less U-Net: {organ}" for organ in ORGANS]
    for label, own in by_form.items():
        *measured, n_lost = numbers(output, own)
        steps = f"{trained(output, own[0])['steps']:.0f}"
        dsc, s2s = measured[: len(ORGANS)], measured[len(ORGANS) :]
        overlap.append([label, f"{parameters(own[0].form):,}", steps, str(len(own)), *dsc, n_lost])
        distance.append([label, *s2s, *less_unet.get(("", label), [""] * len(ORGANS))])
    return (
        "## Networks, equal time\n\n![DSC of every network less the U-Net's](networks.png)\n\n"
        "Mean over the test cases; with two seeds their mean and both, with one seed the interval.\n\n"
        f"{markdown(overlap)}\n\nDistances, and the difference in DSC from the U-Net, paired by case (seeds "
        f"averaged), with its interval; {STAR}\n\n{markdown(distance)}"
    )


def by_number(output: Path, done: Sequence[Training]) -> str:
    """Curves over the number of training cases, and what attention gains at each."""
    usual = [Training(form=form) for form in (UNET, MULTI)]
    there = [training for training in (*usual, *BY_NUMBER) if training in done]
    rows = [["training cases", "network", *(f"DSC {organ}" for organ in ORGANS), "missed + spurious"]]
    made = {}
    curves: dict[tuple[str, str], list[tuple[str, Spread]]] = {}
    for cases in NUMBERS:
        own = {training.form.label: training for training in there if training.cases == cases}
        for label, training in own.items():
            rows.append([str(cases), label, *dsc_cells(output, training), lost(output, training)])
            add(curves, output, training, str(cases))
        if len(own) == 2:
            runs = {label: [one] for label, one in own.items()}
            made[str(cases)] = compared(output, runs, f"cases_{cases}")
    if all(training.cases == USUAL_CASES for training in there):
        return ""
    gains = [["training cases", *(f"two gates less U-Net: {organ}" for organ in ORGANS)]]
    gains += [[cases, *row] for (cases, _), row in by_run(differences(made, UNET.label)).items()]
    draw(RESULTS / "by_number.png", curves, places=[*map(str, NUMBERS)], axis="training cases")
    return (
        "## Number of training cases, equal time\n\n![DSC by training cases](by_number.png)\n\n"
        f"{markdown(rows)}\n\nWhat two gates gain; {STAR}\n\n{markdown(gains)}"
    )


def worse_scans(output: Path) -> str:
    """DSC on worse copies of the test cases, and what attention gains on each."""
    rows = [["scans", *(f"{training.form.label}: {organ}" for training in ASKED for organ in ORGANS)]]
    made = {}
    curves: dict[tuple[str, str], list[tuple[str, Spread]]] = {}
    for condition in ("usual", *CONDITIONS):
        key = key_of(condition)
        if not all(is_scored(output, training, key) for training in ASKED):
            continue
        rows.append([condition, *(cell for one in ASKED for cell in dsc_cells(output, one, key))])
        made[condition] = compared(output, {one.form.label: [one] for one in ASKED}, f"scans_{key}", key)
        for training in ASKED:
            add(curves, output, training, condition, key)
    if len(rows) < 3:
        return ""
    less_unet = by_run(differences(made, UNET.label))
    gains = [["scans", *(f"{one.form.label} less U-Net: {organ}" for one in ASKED[1:] for organ in ORGANS)]]
    gains += [
        [condition, *(cell for one in ASKED[1:] for cell in less_unet[condition, one.form.label])]
        for condition in made
    ]
    draw(RESULTS / "worse_scans.png", curves, places=list(made), axis="scans", joined=False)
    return (
        "## Worse scans, without training again\n\n![DSC on worse scans](worse_scans.png)\n\nMean DSC over "
        f"the test cases; a missed organ counts 0.\n\n{markdown(rows)}\n\n{STAR}\n\n{markdown(gains)}"
    )


def by_spacing(output: Path, done: Sequence[Training], *, full_size: bool) -> str:
    there = [training for training in (Training(form=MULTI), *BY_SPACING) if training in done]
    if len(there) < 2:
        return ""
    curves: dict[tuple[str, str], list[tuple[str, Spread]]] = {}
    usual = read_recipe(MULTI.recipe, MULTI.all_changes(full_size=full_size))
    places = [f"{usual.preprocessing.spacing_mm[0]:g} mm, usual", *(f"{one:g} mm" for one in SPACINGS_MM)]
    for training in there:
        label = training.form.label.removeprefix(f"{MULTI.label}, ")
        for organ in ORGANS:
            point = mean_and_interval(values_of(output, training, organ))
            place = label if label in places else places[0]
            curves.setdefault((MULTI.label, organ), []).append((place, point))
    draw(RESULTS / "by_spacing.png", curves, places=places, axis="spacing of the input")
    size = " x ".join(map(str, usual.training.patch_size))
    return (
        "## Finer input, equal time\n\n![DSC over the spacing](by_spacing.png)\n\nThe usual input has "
        f"{places[0].split(',')[0]}. A patch stays {size} voxels. {STAR}"
        f"\n\n{small_table(output, there, 'spacing')}"
    )


def starts(output: Path, done: Sequence[Training]) -> str:
    there = [training for training in (Training(form=ATTENTION), *STARTS) if training in done]
    if len(there) < 2:
        return ""
    return (
        "## Ways to begin, equal time\n\nWhat begins with the U-Net's weights has the time of its "
        f"training besides. {STAR}\n\n{small_table(output, there, 'starts')}"
    )


def small_table(output: Path, there: Sequence[Training], name: str) -> str:
    """One seed each, compared with the first."""
    labels = {training: way(training) if name == "starts" else training.form.label for training in there}
    first = labels[there[0]]
    less_first = by_run(
        differences({"": compared(output, {labels[one]: [one] for one in there}, name)}, first)
    )
    header = ["network", "steps", *(f"DSC {organ}" for organ in ORGANS)]
    header += [f"S2S {organ}, mm" for organ in ORGANS]
    header += ["missed + spurious", *(f"less the first: {organ}" for organ in ORGANS)]
    rows = [
        [
            labels[training],
            f"{trained(output, training)['steps']:.0f}",
            *numbers(output, [training]),
            *less_first.get(("", labels[training]), [""] * len(ORGANS)),
        ]
        for training in there
    ]
    return markdown([header, *rows])


def way(training: Training) -> str:
    if training.form != ATTENTION:
        return training.form.label
    return f"{ATTENTION.label}, {'from scratch' if training.start is None else 'from the weights of a U-Net'}"


def dsc_cells(output: Path, training: Training, condition: str = "usual") -> list[str]:
    return [with_interval(values_of(output, training, organ, condition)) for organ in ORGANS]


def lost(output: Path, training: Training) -> str:
    missed, spurious = (sum(n) for n in zip(*(left_out(output, training, o) for o in ORGANS), strict=True))
    return f"{missed} + {spurious}"


def add(
    curves: dict[tuple[str, str], list[tuple[str, Spread]]],
    output: Path,
    training: Training,
    place: str,
    condition: str = "usual",
) -> None:
    for organ in ORGANS:
        point = mean_and_interval(values_of(output, training, organ, condition))
        curves.setdefault((training.form.label, organ), []).append((place, point))


def parameters(form: Form) -> int:
    """Trainable ones, with the recipe's own channels and classes."""
    recipe = read_recipe(form.recipe, form.changes)
    channels = 1 if recipe.slices is None else recipe.slices.neighbours
    network = build_network(recipe.network, in_channels=channels, n_classes=recipe.n_outputs)
    return sum(parameter.numel() for parameter in network.parameters())


def write_scores(output: Path, done: Sequence[Training]) -> None:
    """Every case, organ, training and condition, with all that ``ct-attn compare`` asks for."""
    rows: list[dict[str, Any]] = []
    for training in done:
        facts = {
            "training": training.name,
            "network": training.form.label,
            "seed": training.seed,
            "cases": training.cases,
            "steps": trained(output, training)["steps"],
        }
        for condition in ("usual", *CONDITIONS):
            if is_scored(output, training, key_of(condition)):
                own = scores_of(output, training, key_of(condition))
                rows += [{**facts, "condition": condition, **row} for row in own]
    with (RESULTS / "scores.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
