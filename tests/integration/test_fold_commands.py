"""``ct-attn train --fold all`` and ``ct-attn summarize``, from the command line."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from rich.progress import Progress

from ct_attn import cross_validation
from ct_attn.cross_validation import RECORD_NAME, train_folds
from ct_attn.metrics.statistics import summarize
from ct_attn.report.score_files import read_scores
from tests.cohorts import TINY_RECIPE, tiny_recipe
from tests.command import ct_attn

SHORT = ("training.epochs=1", "training.validate_every=1", "training.batches_per_epoch=2")


def train(manifest, output, *options):
    recipe = output.parent / "recipe.yaml"
    recipe.write_text(TINY_RECIPE)
    changes = [word for change in SHORT for word in ("--set", change)]
    return ct_attn("train", recipe, "--data", manifest, "-o", output, *changes, *options)


@pytest.fixture(scope="module")
def run(tiny_manifest, tmp_path_factory):
    output = tmp_path_factory.mktemp("folds") / "run"
    done = train(tiny_manifest, output, "--fold", "all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["model", f"{output}/fold_0/model", "model", f"{output}/fold_1/model"]
    return output


@pytest.fixture(scope="module")
def summary(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("summary")
    done = ct_attn("summarize", run, "-o", output)
    assert done.returncode == 0, done.stderr
    assert "fold 1" in done.stdout
    return output


def bytes_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_fold_is_held_out_once(run):
    held_out = [json.loads((run / f"fold_{fold}" / "run.json").read_text())["fold"] for fold in (0, 1)]
    assert held_out == [0, 1]
    assert json.loads((run / RECORD_NAME).read_text())["finished"] == [0, 1]


def test_finished_folds_are_not_trained_again(run, tiny_manifest, monkeypatch):
    monkeypatch.setattr(cross_validation, "train", None)
    before = bytes_of(run)
    assert train(tiny_manifest, run, "--fold", "all").returncode == 0
    after = bytes_of(run)
    assert {path: after[path] for path in before} == before


def test_an_interrupted_fold_goes_on_only_when_asked(run, tiny_manifest, tmp_path, monkeypatch):
    output = tmp_path / "run"
    shutil.copytree(run, output)
    record = json.loads((output / RECORD_NAME).read_text())
    (output / RECORD_NAME).write_text(json.dumps({**record, "finished": [0]}))
    refused = train(tiny_manifest, output, "--fold", "all")
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    assert train(tiny_manifest, output, "--fold", "all", "--resume").returncode == 0
    assert json.loads((output / RECORD_NAME).read_text())["finished"] == [0, 1]


def test_another_recipe_in_the_same_folder_is_refused(run, tiny_manifest):
    done = train(tiny_manifest, run, "--fold", "all", "--set", "training.seed=9")
    assert done.returncode == 2
    assert "another recipe" in done.stderr


def test_a_folder_with_other_files_is_refused_and_left_alone(tiny_manifest, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert train(tiny_manifest, tmp_path / "run", "--fold", "all").returncode == 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("fold", ["al", "-1", "1.5", ""])
def test_a_fold_is_a_number_or_all(fold, tiny_manifest, tmp_path):
    done = train(tiny_manifest, tmp_path / "run", "--fold", fold)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_wrong_manifest_leaves_nothing(tmp_path):
    with pytest.raises(Exception, match="manifest"):
        train_folds(tiny_recipe(), tmp_path / "no.json", tmp_path / "run", progress=Progress(disable=True))
    assert not list(tmp_path.iterdir())


def test_the_table_pools_the_cases_of_all_folds(run, summary):
    pooled, means = [], {}
    for fold in (0, 1):
        scores, _ = read_scores(run / f"fold_{fold}" / "validation" / "scores.json")
        assert len({score.case_id for score in scores}) == 2
        pooled += scores
        means[fold] = {one.organ: one for one in summarize(scores)}
    with (summary / "summary.csv").open() as file:
        rows = {(row["organ"], row["measure"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3 * 5
    for one in summarize(pooled):
        row = rows[one.organ, "dsc"]
        assert int(row["n"]) == one.dsc.n
        assert float(row["mean"]) == pytest.approx(one.dsc.mean, abs=1e-5)
        assert float(row["low"]) == pytest.approx(one.dsc.low, abs=1e-5)
        for fold in (0, 1):
            assert float(row[f"fold_{fold}"]) == pytest.approx(means[fold][one.organ].dsc.mean, abs=1e-5)
    record = json.loads((summary / "summary.json").read_text())
    assert sorted({case["fold"] for case in record["cases"]}) == [0, 1]
    page = (summary / "report.html").read_text()
    for fold, of_fold in means.items():
        out = {one.organ: one.n_missed + one.n_spurious for one in of_fold.values()}
        assert all(int(rows[organ, "s2s_mm"][f"fold_{fold}_left_out"]) == n for organ, n in out.items())
        distances = [
            f"{one.organ} {one.s2s_mm.mean:.2f}" + (f" ({out[one.organ]} left out)" if out[one.organ] else "")
            for one in of_fold.values()
            if one.s2s_mm.mean is not None
        ]
        assert f"mean S2S in mm {', '.join(distances) or 'of none'}" in page


def test_a_second_summary_predicts_nothing_and_is_the_same(run, summary, tmp_path, monkeypatch):
    monkeypatch.setattr("ct_attn.scoring.Predictor", None)
    assert ct_attn("summarize", run, "-o", tmp_path / "again").returncode == 0
    for name in ("summary.csv", "summary.json", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (summary / name).read_bytes()


def test_a_stopped_scoring_keeps_the_masks_it_has(run, summary, tmp_path, monkeypatch):
    output = tmp_path / "run"
    shutil.copytree(run, output)
    validation = output / "fold_0" / "validation"
    (validation / "done.json").unlink()
    monkeypatch.setattr("ct_attn.scoring.Predictor", None)
    assert ct_attn("summarize", output, "-o", tmp_path / "out").returncode == 0
    assert (validation / "done.json").is_file()


def test_missing_folds_are_named_and_one_fold_needs_the_manifest(run, summary, tiny_manifest, tmp_path):
    refused = ct_attn("summarize", run / "fold_0", "-o", tmp_path / "out")
    assert refused.returncode == 2
    assert "--data" in refused.stderr
    assert not (tmp_path / "out").exists()
    done = ct_attn("summarize", run / "fold_0", "-o", tmp_path / "out", "--data", tiny_manifest)
    assert done.returncode == 0
    assert "Folds that are missing, and their cases in no number: 1." in done.stderr
    assert "missing, and their cases in no number: 1." in (tmp_path / "out" / "report.html").read_text()


def test_a_fold_trained_in_part_is_refused(run, tiny_manifest, tmp_path):
    parts = tmp_path / "runs"
    shutil.copytree(run, parts)
    (parts / RECORD_NAME).unlink()  # as of one job per fold
    log = parts / "fold_1" / "log.csv"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    for given in ([parts], [parts / "fold_0", parts / "fold_1"]):
        refused = ct_attn("summarize", *given, "--data", tiny_manifest, "-o", tmp_path / "out")
        assert refused.returncode == 2
        assert "fold_1: expected a training that has come to its end, found 0 of 1 epochs" in refused.stderr
        assert not (tmp_path / "out").exists()


def test_folds_that_do_not_belong_together_are_refused(run, tiny_manifest, tmp_path):
    twice = ct_attn("summarize", run, run / "fold_1", "-o", tmp_path / "out")
    assert "fold 1, as in" in twice.stderr
    assert train(tiny_manifest, tmp_path / "other", "--set", "training.seed=9").returncode == 0
    mixed = ct_attn("summarize", run / "fold_1", tmp_path / "other", "-o", tmp_path / "out")
    assert "another recipe" in mixed.stderr
    nothing = ct_attn("summarize", tmp_path, "-o", tmp_path / "out")
    assert {twice.returncode, mixed.returncode, nothing.returncode} == {2}
    assert not (tmp_path / "out").exists()
