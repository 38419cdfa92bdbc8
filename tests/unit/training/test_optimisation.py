from __future__ import annotations

import pytest
import torch

from ct_attn.training.optimisation import make_average, make_optimizer, make_plateau, make_schedule
from ct_attn.training_config import OptimizerConfig, TrainingConfig


def rates(epochs=4, batches=5, **optimizer):
    """The learning rate of every step."""
    config = TrainingConfig(
        epochs=epochs,
        batches_per_epoch=batches,
        validate_every=1,
        optimizer=OptimizerConfig(learning_rate=1.0, **optimizer),
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    moving = make_optimizer(config.optimizer, [weight])
    schedule = make_schedule(moving, config)
    seen = []
    for _ in range(epochs * -(-batches // config.optimizer.accumulate)):
        seen.append(moving.param_groups[0]["lr"])
        weight.grad = torch.ones(1)
        moving.step()
        if schedule:
            schedule["scheduler"].step()
    return seen


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_the_optimizer_is_the_one_asked_for(name, kind):
    config = OptimizerConfig(name=name, learning_rate=0.5, weight_decay=0.1, momentum=0.9)
    optimizer = make_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["fused"]) == (0.5, 0.1, True)
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_a_clipped_optimizer_is_not_fused():
    optimizer = make_optimizer(OptimizerConfig(clip_norm=1.0), [torch.nn.Parameter(torch.zeros(1))])
    assert not optimizer.param_groups[0]["fused"]


def test_a_constant_rate_stays():
    assert rates() == [1.0] * 20


def test_a_cosine_falls_to_half_in_the_middle_and_towards_0():
    seen = rates(schedule="cosine")
    assert seen[0] == 1.0
    assert seen[10] == pytest.approx(0.5)
    assert 0 < seen[-1] < 0.01


def test_poly_falls_with_the_exponent_of_nnunet():
    assert rates(schedule="poly") == pytest.approx([(1 - step / 20) ** 0.9 for step in range(20)])


def test_steps_halve_after_their_epochs():
    assert rates(schedule="step", step_epochs=2) == [1.0] * 10 + [0.5] * 10


@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly", "step"])
def test_a_warmup_rises_and_then_begins_the_schedule(schedule):
    seen = rates(schedule=schedule, warmup_epochs=1, step_epochs=1)
    assert seen[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert seen[5:] == pytest.approx(rates(epochs=3, schedule=schedule, step_epochs=1))


def test_accumulated_batches_are_one_step():
    assert len(rates(schedule="cosine", accumulate=2)) == 4 * 3
    assert (
        rates(schedule="step", step_epochs=1, accumulate=2)
        == [1.0] * 3 + [0.5] * 3 + [0.25] * 3 + [0.125] * 3
    )


def test_a_plateau_follows_the_validation_score():
    training = TrainingConfig(
        epochs=100, validate_every=10, optimizer=OptimizerConfig(schedule="plateau", patience_epochs=30)
    )
    optimizer = make_optimizer(training.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    assert make_schedule(optimizer, training) is None
    plateau = make_plateau(optimizer, training)
    seen = []
    for dsc in (0.5, 0.5, 0.5, 0.50001, 0.5, 0.5, 0.5):  # three without gain in a row, at last
        plateau.step(dsc)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([1e-4] * 6 + [0.5e-4])


def test_processes_that_share_an_epoch_take_fewer_steps_in_it():
    training = TrainingConfig(
        epochs=2, validate_every=1, batches_per_epoch=12,
        optimizer=OptimizerConfig(schedule="cosine", accumulate=2),
    )  # fmt: skip
    optimizer = make_optimizer(training.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    lasting = {n: make_schedule(optimizer, training, n_processes=n)["scheduler"].T_max for n in (1, 2, 5)}
    assert lasting == {1: 12, 2: 6, 5: 4}


def test_the_average_follows_weights_and_statistics_slowly_and_asks_for_no_gradient():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    average = make_average(network, 0.9)
    average.update_parameters(network)  # the first is taken whole
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        network[0].weight += 1
        network[1].running_mean += 1
    average.update_parameters(network)
    averaged = average.module.state_dict()
    assert torch.allclose(averaged["0.weight"], before["0.weight"] + 0.1)
    assert torch.allclose(averaged["1.running_mean"], before["1.running_mean"] + 0.1)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_a_plateau_ends_at_the_lowest_rate_and_follows_what_the_recipe_goes_by():
    config = TrainingConfig(
        best_by="loss",
        validate_every=1,
        optimizer=OptimizerConfig(
            learning_rate=1e-4, schedule="plateau", factor=0.1, patience_epochs=2, lowest_rate=1e-7
        ),
    )
    optimizer = make_optimizer(config.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    plateau = make_plateau(optimizer, config)
    assert config.monitored == ("validation_loss", "min")
    seen = []
    for loss in [1.0, 0.9, *[0.9] * 14]:
        plateau.step(loss)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen[:3] == [1e-4] * 3
    assert seen[3] == pytest.approx(1e-5)  # after two without gain
    assert seen[-1] == pytest.approx(1e-7)
    by_dsc = config.model_copy(update={"best_by": "dsc"})
    assert by_dsc.monitored == ("dsc", "max")
    assert make_plateau(optimizer, by_dsc).mode == "max"


def test_a_lowest_rate_above_the_first_is_refused():
    with pytest.raises(ValueError, match="lowest_rate: at most learning_rate"):
        OptimizerConfig(learning_rate=1e-4, lowest_rate=1e-3)
