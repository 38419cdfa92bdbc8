"""What people see of a training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rich.progress import Progress

from ct_attn.training.callbacks import EpochLog
from ct_attn.training.show import Board, ShowProgress, run_facts
from tests.cohorts import tiny_recipe

ROWS = [
    {"epoch": 0, "learning_rate": 0.01, "loss": 0.9},
    {"epoch": 1, "learning_rate": 0.01, "loss": 0.5, "dsc": 0.4, "dsc_spleen": 0.6, "s2s_mm_spleen": 3.0},
    {"epoch": 2, "learning_rate": 0.01, "loss": 0.4},
]


def log_of(rows, tmp_path):
    log = EpochLog(tmp_path / "log.csv", ["spleen"])
    log.rows = list(rows)
    return log


def steps(folder, name):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    return [(event.step, round(event.value, 3)) for event in read.Scalars(name)]


def test_a_run_that_goes_on_has_no_step_twice_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    folder = tmp_path / "tensorboard"
    first = Board(folder, log_of(ROWS[:2], tmp_path))
    first.write()
    first.log.rows = ROWS
    first.write()
    resumed = Board(folder, log_of(ROWS[:2], tmp_path))  # the third epoch was cut off
    resumed.write()
    resumed.log.rows = ROWS
    resumed.write()
    assert steps(folder, "loss") == [(1, 0.9), (2, 0.5), (3, 0.4)]
    assert steps(folder, "s2s_mm_spleen") == [(2, 3.0)]


def test_the_bar_shows_the_last_validation_per_organ_and_counts_batches(tmp_path):
    progress = Progress(disable=True)
    bar = ShowProgress(progress, log_of(ROWS, tmp_path))
    trainer = SimpleNamespace(max_epochs=10, num_training_batches=4, current_epoch=3)
    bar.on_train_start(trainer, None)
    bar.on_train_batch_end(trainer, None, {"loss": 0.25}, None, 1)
    (task,) = progress.tasks
    assert (task.completed, task.total) == (14, 40)
    assert task.description == "training, epoch 4, loss 0.250, DSC spleen 0.600"


def test_the_facts_say_how_many_batches_make_a_step():
    recipe = tiny_recipe("training.optimizer.accumulate=3")
    assert run_facts(recipe, n_parameters=1000, n_processes=1)["batches per step"] == "3"
    shared = run_facts(recipe, n_parameters=1000, n_processes=2)
    assert (shared["batches per step"], shared["processes"]) == ("6", "2")
