"""The study's queue, and its tables from what is done so far."""

from __future__ import annotations

import csv
import json
import random
import threading

import pytest
import study
import study_design
import study_results
from study_design import ASKED, BY_SPACING, CONDITIONS, MULTI, ORGANS, QUEUE, UNET, Training, key_of

from ct_attn.manifest import choose_fold, read_manifest
from ct_attn.network.build import build_network
from ct_attn.recipe import read_recipe

FORMS = list(study.forms())


def test_there_are_at_most_forty_trainings_and_no_two_of_a_name():
    names = [training.name for training in QUEUE]
    assert len(set(names)) == len(names) <= 40
    assert len({form.key for form in FORMS}) == len(FORMS)
    assert {training.start for training in QUEUE if training.start} <= set(names)
    assert {training.form for training in study_design.SECOND_SEED} == set(study_design.CONTROLLED)


@pytest.mark.parametrize("full_size", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.key)
def test_every_form_is_a_recipe_that_can_be_trained(form, full_size):
    recipe = read_recipe(form.recipe, form.all_changes(full_size=full_size))
    assert recipe.training.epochs == recipe.training.validate_every == study_design.EPOCHS
    assert recipe.training.augmentation.gamma == 0
    finer = {one.form: spacing for one, spacing in zip(BY_SPACING, study_design.SPACINGS_MM, strict=True)}
    if form in finer:
        assert recipe.preprocessing.spacing_mm == (finer[form],) * 3
    elif not full_size:
        assert recipe.preprocessing.spacing_mm[0] == (6 if recipe.slices is None else 4.5)


def test_parameters_are_those_that_train():
    (form,) = [form for form in FORMS if form.label.startswith("2D additive")]
    recipe = read_recipe(form.recipe, form.changes)
    assert recipe.loss.activation == "sigmoid"
    network = build_network(recipe.network, in_channels=3, n_classes=3)
    assert study_results.parameters(form) == sum(one.numel() for one in network.parameters())


def test_a_smaller_cohort_has_one_case_to_validate_and_the_first_to_train_on(tiny_manifest):
    copy = tiny_manifest.with_name("manifest_2.json")
    try:
        reduced = study.fewer_cases(tiny_manifest, 2)
        assert reduced == copy
        training, validation = choose_fold(read_manifest(reduced), 0, path=reduced)
        assert (len(training), len(validation)) == (2, 1)
    finally:
        copy.unlink()


def test_another_recipe_or_start_makes_another_training(tmp_path):
    small = study.Study(output=tmp_path, full_size=False)
    plain = Training(form=UNET)
    facts = study.facts_of(plain, small, 100)
    assert facts == study.facts_of(plain, small, 100)
    assert facts != study.facts_of(Training(form=MULTI), small, 100)
    assert facts != study.facts_of(plain, study.Study(output=tmp_path, full_size=True), 100)
    started = Training(form=UNET, start="another")
    weights = tmp_path / "trainings" / "another" / "run" / "model" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"a")
    first = study.facts_of(started, small, 100)
    weights.write_bytes(b"b")
    assert study.facts_of(started, small, 100) != first


def test_what_fails_is_named_and_the_others_are_still_done(tmp_path, monkeypatch):
    asked, done = [], []

    def carry_out(training, *_):
        asked.append(training.name)
        if training.form is UNET:
            raise FileNotFoundError("weights")
        done.append(training.name)

    monkeypatch.setattr(study, "carry_out", carry_out)
    monkeypatch.setattr(study, "ask", lambda *_: None)
    monkeypatch.setattr(study, "draw_worse", lambda *_: None)
    steps = {form.key: 10 for form in FORMS}
    failed = study.work_through(study.Study(output=tmp_path, full_size=False), steps)
    assert asked == [training.name for training in QUEUE]
    assert failed == [training.name for training in QUEUE if training.form is UNET]
    assert len(done) + len(failed) == len(QUEUE)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Where results go; a page with marks is there."""
    monkeypatch.setattr(study_results, "RESULTS", tmp_path / "results")
    page = tmp_path / "study.md"
    page.write_text(
        f"before\n{study_results.BEGIN}of last year\n{study_results.END}after\n", encoding="utf-8"
    )
    monkeypatch.setattr(study_results, "PAGE", page)
    return tmp_path


def make_done(output, training, gain, *conditions):
    """What a training leaves behind; its DSC is ``gain`` above a random one that all share."""
    folder = output / "trainings" / training.name
    about = {"wall_s": 100.0, "cpu_s": 200.0, "steps": 50, "machine": "a machine", "commit": "abc"}
    for condition in ("usual", *conditions):
        generator = random.Random(3)
        scores = folder / f"evaluation_{key_of(condition)}" / "scores.csv"
        scores.parent.mkdir(parents=True)
        with scores.open("w", encoding="utf-8", newline="") as file:
            names = ["case_id", "organ", "state", "dsc", "precision", "recall", "s2s_mm", "truth_ml"]
            rows = csv.DictWriter(file, names)
            rows.writeheader()
            for case in range(16):
                for organ in ORGANS:
                    dsc = generator.uniform(0.4, 0.7) + gain
                    row = {"dsc": dsc, "precision": dsc, "recall": dsc, "s2s_mm": 1 / dsc, "truth_ml": 50}
                    rows.writerow({"case_id": f"case{case}", "organ": organ, "state": "scored", **row})
        for name in ("trained", f"predicted_{key_of(condition)}", f"scored_{key_of(condition)}"):
            (folder / f"{name}.json").write_text(json.dumps(about))
            (folder / f"{name}.log").touch()


def test_tables_and_figures_are_of_what_is_done(written, tmp_path):
    output = tmp_path / "study"
    make_done(output, Training(form=UNET), 0.0, "noise x2")
    make_done(output, Training(form=UNET, seed=2), 0.0)
    study_results.write_results(output, minutes=2, full_size=False)
    first = (written / "results" / "study.md").read_text()
    assert f"2 of {len(QUEUE)} trainings are done" in first
    assert "## " not in first  # nothing to compare with
    for training in ASKED[1:]:
        make_done(output, training, 0.1, "noise x2")
    make_done(output, BY_SPACING[0], 0.2)
    for cases in (6, 12):
        for form in (UNET, MULTI):
            make_done(output, Training(form=form, cases=cases), 0.05)
    make_done(output, next(one for one in QUEUE if one.start is not None), 0.05)
    make_done(output, Training(form=study_design.ATTENTION), 0.0)
    study_results.write_results(output, minutes=2, full_size=False)
    text = (written / "results" / "study.md").read_text()
    assert text.count("## ") == 5
    networks = text.split("## Networks")[1].split("## ")[0]
    _, line = [line for line in networks.splitlines() if line.startswith(f"| {MULTI.label} |")]
    assert "+0.100 (+0.100 to +0.100)*" in line
    _, line = [
        line for line in networks.splitlines() if line.startswith(f"| {study_design.ATTENTION.label} |")
    ]
    assert line.endswith(" +0.000 (+0.000 to +0.000) |")
    for figure in ("networks", "by_number", "worse_scans", "by_spacing"):
        assert (written / "results" / f"{figure}.png").stat().st_size > 10_000
    page = (written / "study.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "last year" not in page
    assert "](../benchmarks/results/study/by_number.png)" in page
    with (written / "results" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["condition"] for row in rows} == {"usual", "noise x2"}
    assert len(rows) == 16 * len(ORGANS) * (11 + 3)


def test_the_page_has_a_place_for_what_the_study_finds():
    page = study_results.PAGE.read_text(encoding="utf-8")
    assert page.index(study_results.BEGIN) < page.index(study_results.END)


def test_a_form_that_cannot_be_timed_is_left_out_and_timed_again(tmp_path, monkeypatch):
    small = study.Study(output=tmp_path, full_size=False, jobs=2)

    def steps_of(form, *_):
        if form is UNET:
            raise ValueError("not enough")
        return 10

    monkeypatch.setattr(study, "steps_of", steps_of)
    steps, failed = study.all_steps(small, 2)
    assert failed == [f"timing {UNET.label}"]
    assert UNET.key not in steps
    assert len(steps) == len(FORMS) - 1


def test_jobs_run_side_by_side_and_what_is_no_failure_of_theirs_ends_the_queue():
    met = threading.Barrier(2)
    assert study.all_of({"one": lambda: met.wait(30), "another": lambda: met.wait(30)}, 2) == []
    begun = []

    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        study.all_of({"broken": broken, **{f"job {n}": lambda n=n: begun.append(n) for n in range(1000)}}, 1)
    assert len(begun) < 1000


def test_two_jobs_have_the_time_of_the_whole_machine_together(tmp_path, monkeypatch):
    def measure(_, words, measured, *__, **___):
        assert words[0] == study.sys.executable
        measured.parent.mkdir(parents=True, exist_ok=True)
        measured.write_text('{"step_s": 0.5}', encoding="utf-8")

    monkeypatch.setattr(study, "once", measure)
    monkeypatch.setattr(study, "fewer_cases", lambda *_: tmp_path / "manifest.json")
    one, two = (study.Study(output=tmp_path, full_size=False, jobs=jobs) for jobs in (1, 2))
    assert study.steps_of(UNET, one, 1) == 120
    assert study.steps_of(UNET, two, 1) == 240


def test_nothing_done_writes_nothing(written, tmp_path):
    study_results.write_results(tmp_path / "study", minutes=2, full_size=False)
    assert not (written / "results").exists()
    assert "last year" in (written / "study.md").read_text()


def test_conditions_are_those_a_phantom_can_have():
    assert len({key_of(condition) for condition in CONDITIONS}) == len(CONDITIONS)
