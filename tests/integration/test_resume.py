"""Runs that are killed and resumed end with what an undisturbed run ends with, to the last bit."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from ct_attn.checkpoint import load_checkpoint
from ct_attn.recipe import write_recipe
from ct_attn.training.state import content_digest, read_state
from tests.cohorts import tiny_recipe
from tests.killed_runs import Driver

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).with_name("ct-attn")
ALL_SORTS = (
    "training.epochs=6", "training.validate_every=2", "network.norm=instance", "training.ema_decay=0.5",
    "training.optimizer.name=sgd", "training.optimizer.momentum=0.9", "training.optimizer.clip_norm=0.1",
    "training.optimizer.schedule=poly", "training.optimizer.warmup_epochs=1", "training.batches_per_epoch=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def driver():
    with Driver() as started:
        yield started


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    write_recipe(tiny_recipe(*ALL_SORTS), path)
    return path


def content(run):
    return read_state(run / "state.ckpt", run / "state.previous.ckpt", print).content


def assert_twins(run, twin):
    """Weights, optimizer, log, best model, report and picture are the same to the last bit."""
    first, second = content(run), content(twin)
    for part in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        assert content_digest(first[part]) == content_digest(second[part]), part
    for model in ("model", "last"):
        assert load_checkpoint(run / model).digest == load_checkpoint(twin / model).digest, model
    for name in ("log.csv", "report.html", "progress.png", "run.json"):
        assert (run / name).read_bytes() == (twin / name).read_bytes(), name
    assert not list(run.rglob(".partial-*"))


@pytest.mark.parametrize(("processes", "seed"), [(1, 5), (2, 8)])
def test_five_kills_at_random_moments_change_nothing(
    driver, recipe, tiny_manifest, tmp_path, processes, seed
):
    rng = random.Random(seed)
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu", "--devices", processes]
    assert driver.train(*arguments, "-o", tmp_path / "twin", processes=processes) == [0] * processes
    batches = 4 // processes
    moments = [
        ("batch", rng.randint(1, batches), 0),  # before there is any state
        ("batch", rng.randint(batches + 1, 2 * batches), rng.randrange(processes)),
        ("saving", rng.randint(2, 20), 0),
        ("validation", 1, rng.randrange(processes)),
        (rng.choice(["renaming", "after the state", "the log"]), 1, 0),
    ]
    for moment in moments:
        codes = driver.train(
            *arguments, "-o", tmp_path / "run", "--resume", processes=processes, moment=moment
        )
        assert codes[moment[2]] == -signal.SIGKILL, moment
    codes = driver.train(*arguments, "-o", tmp_path / "run", "--resume", processes=processes)
    assert codes == [0] * processes
    assert_twins(tmp_path / "run", tmp_path / "twin")


def test_a_kill_between_any_two_files_leaves_them_to_be_put_right(driver, recipe, tiny_manifest, tmp_path):
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu", "--set", "training.epochs=2"]
    assert driver.train(*arguments, "-o", tmp_path / "twin") == [0]
    # Of the second epoch; the model is the last of the first epoch, then best and last of the second.
    moments = [("renaming", 2), ("after the state", 2), ("the model", 2), ("the model", 3), ("the log", 4)]
    for number, moment in enumerate(moments):
        run = tmp_path / f"run{number}"
        assert driver.train(*arguments, "-o", run, moment=(*moment, 0)) == [-signal.SIGKILL]
        assert driver.train(*arguments, "-o", run, "--resume") == [0]
        assert_twins(run, tmp_path / "twin")


def test_kills_from_outside_at_any_moment_change_nothing(driver, recipe, tiny_manifest, tmp_path):
    rng = random.Random(17)
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu"]
    begin = time.monotonic()
    assert driver.train(*arguments, "-o", tmp_path / "twin") == [0]
    whole_s = time.monotonic() - begin
    codes = []
    for _ in range(3):
        delay_s = rng.uniform(0.1, 0.7) * whole_s
        codes += driver.train(*arguments, "-o", tmp_path / "run", "--resume", kill_after_s=delay_s)
    assert -signal.SIGKILL in codes
    assert driver.train(*arguments, "-o", tmp_path / "run", "--resume") == [0]
    assert_twins(tmp_path / "run", tmp_path / "twin")


def test_a_plateau_and_the_wait_for_an_early_stop_go_on_where_they_were(
    driver, recipe, tiny_manifest, tmp_path
):
    # Steps too small to change a mask: no validation is better than the first.
    changes = [
        "training.epochs=8", "training.validate_every=1", "training.batches_per_epoch=2",
        "training.optimizer.schedule=plateau", "training.optimizer.patience_epochs=2",
        "training.optimizer.warmup_epochs=0", "training.optimizer.learning_rate=1e-7",
        "training.early_stopping_epochs=4", "training.ema_decay=null",
    ]  # fmt: skip
    options = [word for change in changes for word in ("--set", change)]
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu", *options]
    assert driver.train(*arguments, "-o", tmp_path / "twin") == [0]
    rates = logged(tmp_path / "twin", "learning_rate")
    assert rates == pytest.approx([1e-7, 1e-7, 1e-7, 0.5e-7, 0.5e-7], rel=1e-6)
    # With the state of epoch 2, in which both wait, of epoch 3, which lowers the rate, and of epoch 4.
    for moment in [("after the state", 2, 0), ("batch", 3, 0), ("after the state", 2, 0)]:
        codes = driver.train(*arguments, "-o", tmp_path / "run", "--resume", moment=moment)
        assert codes == [-signal.SIGKILL], moment
    assert driver.train(*arguments, "-o", tmp_path / "run", "--resume") == [0]
    assert_twins(tmp_path / "run", tmp_path / "twin")
    assert len(logged(tmp_path / "run", "loss")) == 5


def test_statistics_of_batches_are_those_of_the_first_process_on_all_and_after_a_kill(
    driver, recipe, tiny_manifest, tmp_path
):
    changes = ["network.norm=batch", "training.sync_batch_norm=false", "training.epochs=2",
               "training.validate_every=1", "training.optimizer.warmup_epochs=0"]  # fmt: skip
    options = [word for change in changes for word in ("--set", change)]
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu", "--devices", 2, *options]
    assert driver.train(*arguments, "-o", tmp_path / "twin", processes=2) == [0, 0]
    run = tmp_path / "run"
    codes = driver.train(*arguments, "-o", run, processes=2, moment=("batch", 3, 1))  # of epoch 2
    assert codes[1] == -signal.SIGKILL
    assert driver.train(*arguments, "-o", run, "--resume", processes=2) == [0, 0]
    assert_twins(run, tmp_path / "twin")


def test_a_loss_of_another_process_that_is_no_number_is_told_by_the_first(
    driver, recipe, tiny_manifest, tmp_path
):
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu", "--devices", 2]
    run, said = tmp_path / "run", tmp_path / "said.txt"
    codes = driver.train(
        *arguments, "-o", run, processes=2, moment=("no number", 3, 1), said=said
    )  # the first batch of epoch 2
    assert codes == [2, 0]
    (line,) = [line for line in said.read_text().splitlines() if "error: " in line]
    assert "epoch 2, step 1: expected a finite loss, found nan on the patches of " in line
    with safe_open(run / "non_finite_batch.safetensors", framework="pt") as opened:
        cases = json.loads(opened.metadata()["case_ids"])
        starts = opened.get_tensor("start").tolist()
    assert all(f"{case} from voxel {tuple(start)}" in line for case, start in zip(cases, starts, strict=True))
    assert content(run)["epoch"] == 0


def logged(run, column):
    with (run / "log.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def test_two_processes_train_as_one_that_accumulates_two_batches(driver, recipe, tiny_manifest, tmp_path):
    calm = ("--set", "training.optimizer.learning_rate=0.001", "--set", "training.epochs=2")
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu", *calm]
    assert driver.train(*arguments, "-o", tmp_path / "two", "--devices", 2, processes=2) == [0, 0]
    accumulating = ("--set", "training.optimizer.accumulate=2")
    assert driver.train(*arguments, "-o", tmp_path / "one", *accumulating) == [0]
    assert driver.train(*arguments, "-o", tmp_path / "plain") == [0]
    for column, rel in (("loss", 1e-5), ("training_dsc", 1e-3)):  # voxels near a border may change sides
        two, one, plain = (logged(tmp_path / run, column) for run in ("two", "one", "plain"))
        assert two == pytest.approx(one, rel=rel)
        assert two != pytest.approx(plain, rel=rel)


def test_the_command_starts_its_second_process_itself(driver, recipe, tiny_manifest, tmp_path):
    arguments = [recipe, "--data", tiny_manifest, "--device", "cpu", "--devices", 2]
    shorter = ("--set", "training.epochs=2")
    done = subprocess.run(
        [COMMAND, "train", *map(str, [*arguments, "-o", tmp_path / "own", *shorter])],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["model"]
    torchrun = driver.train(*arguments, "-o", tmp_path / "torchrun", *shorter, processes=2)
    assert torchrun == [0, 0]
    assert_twins(tmp_path / "own", tmp_path / "torchrun")
