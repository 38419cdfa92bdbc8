"""``ct-attn reproduce`` in miniature: the paper's networks and recipes, a few steps on drawings."""

from __future__ import annotations

import csv
import json
from unittest.mock import patch

import pytest

from ct_attn.checkpoint import load_checkpoint
from ct_attn.datasets.phantom.cohort import CohortConfig, make_cohort
from ct_attn.inference.backends import openvino_backend
from ct_attn.published import published_figures
from ct_attn.reproduction.experiments import EXPERIMENTS
from tests.cohorts import COARSE
from tests.command import ct_attn

MINIATURE = (
    "preprocessing.spacing_mm=[10,10,10]", "training.patch_size=[32,32,16]", "training.epochs=1",
    "training.validate_every=1", "training.batches_per_epoch=1", "inference.overlap=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five drawn patients, none of them in the tiny cohort."""
    config = CohortConfig(n_training=4, n_test=1, n_folds=2, seed=11, phantom=COARSE)
    return make_cohort(config, tmp_path_factory.mktemp("source") / "cohort")


def reproduce(target, output, *options):
    changes = [word for change in MINIATURE for word in ("--set", change)]
    # Which backend is faster would be measured for each of its models: half of the time it takes.
    with patch.object(openvino_backend, "is_installed", lambda: False):
        return ct_attn("reproduce", "--data", target, "-o", output, *changes, *options)


@pytest.fixture(scope="module")
def made(tiny_manifest, source, tmp_path_factory):
    output = tmp_path_factory.mktemp("paper") / "out"
    done = reproduce(tiny_manifest, output, "--source", source)
    assert done.returncode == 0, done.stderr
    (output.parent / "stdout.txt").write_text(done.stdout)
    return output


def rows_of(output):
    with (output / "reproduce.csv").open() as file:
        return list(csv.DictReader(file))


def number(text):
    return float(text) if text else None


def tables_of(output):
    return {path.name: path.read_bytes() for path in output.glob("reproduce.*")}


@pytest.mark.slow
def test_every_published_row_and_spread_stands_there_with_ours_beside_it(made):
    rows = rows_of(made)
    for figure in published_figures():
        about = (figure.method, figure.stage, figure.train_test, figure.organ, figure.metric)
        keys = ("method", "stage", "train_test", "organ", "metric")
        (row,) = [row for row in rows if tuple(row[key] for key in keys) == about]
        for column, printed in (("published_mean", figure.mean), ("published_std", figure.std)):
            assert number(row[column]) == (None if printed is None else pytest.approx(printed, rel=1e-5))
        assert (row["mean"] == "") == (row["note"] != "")
        if figure.table == "state-of-the-art":
            assert row["note"] == "another group's method"
        elif figure.metric in ("dsc", "parameters_million", "inference_s"):
            assert float(row["mean"]) >= 0


@pytest.mark.slow
def test_networks_have_their_sizes_and_the_capacity_controls_a_dsc_of_ours(made):
    rows = {(row["experiment"], row["organ"], row["metric"]): row for row in rows_of(made)}
    parameters = rows["ct150_120_30_unet_10m4", "", "parameters_million"]
    assert (parameters["published_mean"], parameters["mean"]) == ("10.4", "10.4032")
    dsc = rows["ct150_120_30_unet_6m44", "pancreas", "dsc"]
    assert dsc["published_mean"] == ""
    assert dsc["mean"] != ""


@pytest.mark.slow
def test_splits_are_by_patient_in_the_papers_shares(made):
    for name, sizes in {"source_120_30": (4, 1), "source_30_120": (2, 3), "target": (4, 1)}.items():
        manifest = json.loads((made / "data" / f"{name}.json").read_text())
        sides = [{case["patient_id"] for case in manifest[side]} for side in ("training", "test")]
        assert tuple(map(len, sides)) == sizes
        assert not sides[0] & sides[1]


@pytest.mark.slow
def test_stages_are_what_they_are_called(made):
    def model(name):
        return load_checkpoint(made / "runs" / name / "model")

    def test_cases(name):
        return {path.name for path in (made / "scores" / name / "masks").iterdir()}

    assert not (made / "runs" / "ct82_bft_unet").exists()
    bft = json.loads((made / "scores" / "ct82_bft_unet" / "done.json").read_text())
    whole = json.loads((made / "scores" / "ct150_120_30_unet" / "done.json").read_text())
    assert bft["model"] == whole["model"]
    assert test_cases("ct82_bft_unet") == test_cases("ct82_scr_unet") != test_cases("ct150_120_30_unet")
    start, tuned = load_checkpoint(made / "runs" / "ct82_aft_unet_start"), model("ct82_aft_unet")
    assert start.provenance["manifest_digest"] == model("ct150_120_30_unet").provenance["manifest_digest"]
    assert tuned.provenance["init_from"].startswith("sha256:")
    assert "init_from" not in model("ct82_scr_unet").provenance
    assert list(tuned.recipe.targets) == list(start.recipe.targets) == ["pancreas"]
    # one step of Adam at 1e-4: the fine-tuned weights lie next to those they started from
    assert (tuned.weights["center.0.0.weight"] - start.weights["center.0.0.weight"]).abs().max() < 2e-4


@pytest.mark.slow
def test_the_tables_say_which_data_they_come_from(made):
    for name in ("reproduce.md", "reproduce.html"):
        text = (made / name).read_text()
        assert "phantom, seed 3" in text
        assert "phantom, seed 11" in text
        assert "CT-150 (the source) is not public" in text
        assert "Drawings by a program" in text
        assert "not legible in our source" in text
        assert "0.840 ± 0.087" in text
    assert "0.840 ± 0.087" in (made.parent / "stdout.txt").read_text()


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_gives_the_same_tables(made, tiny_manifest, source, monkeypatch):
    monkeypatch.setattr("ct_attn.reproduce.train", None)
    monkeypatch.setattr("ct_attn.scoring.Predictor", None)
    before = tables_of(made)
    assert reproduce(tiny_manifest, made, "--source", source).returncode == 0
    assert tables_of(made) == before
    listed = reproduce(tiny_manifest, made, "--source", source, "--dry-run", "--only", "ct82_scr_unet")
    assert "done" in listed.stdout


@pytest.mark.slow
def test_without_a_source_its_rows_say_that_they_were_not_run(tiny_manifest, tmp_path):
    asked = [word for stage in ("bft", "aft", "scr") for word in ("--only", f"ct82_{stage}_unet")]
    done = reproduce(tiny_manifest, tmp_path / "out", *asked)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir() if path.is_dir()] == ["ct82_scr_unet"]
    notes = {(row["method"], row["stage"], row["metric"]): row["note"] for row in rows_of(tmp_path / "out")}
    assert "needs --source" in notes["U-Net", "BFT", "dsc"]
    assert "needs --source" in notes["U-Net", "AFT", "s2s_mm"]
    assert notes["U-Net", "SCR", "dsc"] == ""
    assert notes["Attention U-Net", "SCR", "dsc"] == "not asked for"


def test_a_dry_run_lists_trainings_and_writes_nothing(tiny_manifest, source, tmp_path):
    done = reproduce(
        tiny_manifest, tmp_path / "out", "--source", source, "--dry-run", "--only", "ct82_bft_unet"
    )
    assert done.returncode == 0, done.stderr
    training, scoring = done.stdout.splitlines()
    assert training.split()[:3] == ["ct150_120_30_unet", "to", "train"]
    assert "3/1/1 cases" in training
    assert "1 steps" in training
    assert "GiB" in training
    assert scoring.startswith("ct82_bft_unet")
    assert not (tmp_path / "out").exists()


def test_the_recipes_come_along_wherever_the_command_is_run(tiny_manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = ct_attn("reproduce", "--data", tiny_manifest.resolve(), "--dry-run", "--only", "ct82_scr_unet")
    assert done.returncode == 0, done.stderr
    assert "31000 steps" in done.stdout
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--only", "ct83*"), "ct82_scr_unet"),
        (("--source", "TARGET"), "no scan of"),
        (("--source", "nowhere.json"), "nowhere.json"),
        (("--set", "training.epoch=1"), "training.epoch"),
        (("--recipes", "nowhere"), "nowhere/ct82_scr_unet.yaml"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(options, words, tiny_manifest, tmp_path):
    options = [tiny_manifest if option == "TARGET" else option for option in options]
    done = reproduce(tiny_manifest, tmp_path / "out", *options)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_experiments_are_all_those_the_paper_has():
    published = {
        (figure.table, figure.method, figure.stage, figure.train_test)
        for figure in published_figures()
        if figure.table != "state-of-the-art"
    }
    ours = {(one.table, one.method, one.stage, one.train_test) for one in EXPERIMENTS}
    assert ours == published
