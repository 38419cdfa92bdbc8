"""What people see of a training."""

from __future__ import annotations

from math import nan
from types import SimpleNamespace

import pytest
import torch
from rich.progress import Progress
from torch import nn

from ct_attn.training.callbacks import EpochLog, KeepBest
from ct_attn.training.show import Board, RunPictures, ShowProgress, run_facts
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


@pytest.mark.parametrize(
    ("best_by", "dsc", "losses", "said"),
    [
        ("dsc", [0.4, 0.6, 0.5], [0.3, 0.2, 0.1], "mean DSC 0.600 after epoch 2"),
        ("dsc", [nan, 0.6, nan], [0.3, 0.2, 0.1], "mean DSC 0.600 after epoch 2"),
        ("dsc", [nan, nan, nan], [0.3, 0.2, 0.1], "no DSC of any organ after epoch 1"),
        ("loss", [0.4, 0.6, 0.5], [0.3, 0.2, 0.1], "mean loss 0.100, mean DSC 0.500 after epoch 3"),
    ],
)
def test_the_report_names_the_validation_whose_model_is_kept(best_by, dsc, losses, said, tmp_path):
    recipe = tiny_recipe(f"training.best_by={best_by}")
    best = KeepBest(nn.Linear(1, 1), tmp_path / "model", recipe, {})
    rows = []
    for epoch, (score, loss) in enumerate(zip(dsc, losses, strict=True)):
        metrics = {"dsc": torch.tensor(score), "validation_loss": torch.tensor(loss)}
        trainer = SimpleNamespace(callback_metrics=metrics, sanity_checking=False, current_epoch=epoch)
        best.on_validation_end(trainer, None)
        rows.append(ROWS[1] | {"epoch": epoch, "dsc": score, "validation_loss": loss})
    log = log_of(rows, tmp_path)
    pictures = RunPictures(
        picture=tmp_path / "progress.png", report=tmp_path / "report.html", recipe=recipe, facts={},
        log=log, best=best, worst=SimpleNamespace(cases=[], pictures={}), attention=None,
    )  # fmt: skip
    pictures.write()
    assert said in (tmp_path / "report.html").read_text()


def test_the_facts_say_how_many_batches_make_a_step():
    recipe = tiny_recipe("training.optimizer.accumulate=3")
    assert run_facts(recipe, n_parameters=1000, n_processes=1)["batches per step"] == "3"
    shared = run_facts(recipe, n_parameters=1000, n_processes=2)
    assert (shared["batches per step"], shared["processes"]) == ("6", "2")


def test_the_facts_of_slices_and_sigmoids_say_so():
    recipe = tiny_recipe(
        "network.dims=2", "slices={plane: coronal, neighbours: 5}", "preprocessing.spacing_mm=[8, null, 8]",
        "training.patch_size=[32, 1, 32]", "loss.activation=sigmoid",
    )  # fmt: skip
    facts = run_facts(recipe, n_parameters=1000, n_processes=1)
    assert facts["slices"] == "coronal, channels: 5"
    assert facts["outputs"] == "one sigmoid for each organ"
