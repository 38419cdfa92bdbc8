"""What a training keeps of its validations."""

from __future__ import annotations

from math import nan
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ct_attn.checkpoint import load_checkpoint
from ct_attn.training.callbacks import KeepBest, KeepLast, stop_early
from tests.cohorts import tiny_recipe


def validations(keep, network, *found):
    """The weight that is kept after each validation, of a network whose only weight counts them."""
    kept = []
    for epoch, dsc in enumerate(found):
        with torch.no_grad():
            network.weight.fill_(epoch)
        metrics = {"dsc": torch.tensor(dsc), "validation_loss": torch.tensor(-epoch)}
        keep.on_validation_end(
            SimpleNamespace(callback_metrics=metrics, sanity_checking=False, current_epoch=epoch), None
        )
        kept.append(keep.weights["weight"].item())
    return kept


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ((0.5, 0.4, 0.6, 0.6), [0, 0, 2, 2]),
        ((nan, 0.1, nan, 0.05), [0, 1, 1, 1]),
        ((nan, nan), [0, 0]),
    ],
)
def test_the_best_is_kept_and_a_validation_without_a_score_only_as_long_as_there_is_no_other(
    found, kept, tmp_path
):
    network = nn.Linear(1, 1, bias=False)
    keep = KeepBest(network, tmp_path / "model", tiny_recipe(), {})
    assert validations(keep, network, *found) == kept


def test_the_last_model_follows_the_network_and_knows_the_end(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    keep = KeepLast(network, tmp_path / "last", tiny_recipe(), {"fold": 2})
    keep.write()
    assert not keep.folder.exists()  # no epoch yet
    for epoch, stopping, finished in [(0, False, False), (1, True, True), (9, False, True)]:
        with torch.no_grad():
            network.weight.fill_(epoch)
        keep.on_train_epoch_end(
            SimpleNamespace(current_epoch=epoch, max_epochs=10, should_stop=stopping), None
        )
        keep.write()
        model = load_checkpoint(keep.folder)
        assert model.weights["weight"].item() == epoch
        assert model.provenance == {"fold": 2, "epoch": epoch, "finished": finished}
        again = KeepLast(network, tmp_path / "resumed", tiny_recipe(), {})
        again.load_state_dict(keep.state_dict())
        again.write()
        assert load_checkpoint(again.folder).digest == model.digest


@pytest.mark.parametrize(("select_by", "stops"), [("dsc", False), ("loss", True)])
def test_a_dsc_without_a_value_ends_no_training_and_a_broken_loss_does(select_by, stops):
    recipe = tiny_recipe("training.early_stopping_epochs=4", f"training.best_by={select_by}")
    (stop,) = stop_early(recipe.training)
    assert stop.check_finite is stops


def test_a_model_without_a_dsc_does_not_bear_that_of_an_earlier_one(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    keep = KeepBest(network, tmp_path / "model", tiny_recipe("training.best_by=loss"), {})
    assert validations(keep, network, 0.5, nan) == [0, 1]
    assert "validation_dsc" not in keep.provenance
