"""From a recipe's optimizer section to torch's optimizer and schedule."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ct_attn.training_config import OptimizerConfig, TrainingConfig


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimizer of ``parameters``, in torch's fused form where that can be.

    Lightning doesn't clip the gradients of a fused one.
    """
    common: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "fused": config.clip_norm is None,
    }
    match config.name:
        case "adam":
            return Adam(parameters, **common)
        case "adamw":
            return AdamW(parameters, **common)
        case "sgd":
            return SGD(parameters, momentum=config.momentum, nesterov=config.momentum > 0, **common)


def make_plateau(optimizer: Optimizer, training: TrainingConfig) -> ReduceLROnPlateau:
    """The schedule ``plateau``, to be told what the recipe goes by after every validation."""
    config = training.optimizer
    n_borne = ceil(config.patience_epochs / training.validate_every)
    _, mode = training.monitored
    return ReduceLROnPlateau(
        optimizer,
        mode=mode,
        factor=config.factor,
        patience=n_borne - 1,  # torch lowers the rate at the one after
        threshold=0.0,  # better by however little, as for the model kept and early stopping
        min_lr=config.lowest_rate,
    )


def make_schedule(
    optimizer: Optimizer, training: TrainingConfig, *, n_processes: int = 1
) -> dict[str, Any] | None:
    """How the learning rate changes from step to step, as Lightning wants it told; None where it doesn't.

    ``n_processes`` share the batches of an epoch. A plateau is not among these schedules:
    see :func:`make_plateau`.
    """
    config = training.optimizer
    steps_per_epoch = ceil(ceil(training.batches_per_epoch / n_processes) / config.accumulate)
    warmup = config.warmup_epochs * steps_per_epoch
    schedule = _after_warmup(optimizer, config, training.epochs * steps_per_epoch - warmup, steps_per_epoch)
    if warmup:
        rising = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        steady = schedule or StepLR(optimizer, step_size=training.epochs * steps_per_epoch, gamma=1.0)
        schedule = SequentialLR(optimizer, [rising, steady], milestones=[warmup])
    return None if schedule is None else {"scheduler": schedule, "interval": "step"}


def _after_warmup(
    optimizer: Optimizer, config: OptimizerConfig, steps: int, steps_per_epoch: int
) -> LRScheduler | None:
    match config.schedule:
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=steps)
        case "poly":
            return PolynomialLR(optimizer, total_iters=steps, power=0.9)
        case "step":
            return StepLR(optimizer, step_size=config.step_epochs * steps_per_epoch, gamma=config.factor)
        case _:
            return None


def make_average(network: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of ``network``'s weights and statistics, a network of its own."""
    moving_average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call] # torch's
    average = AveragedModel(network, multi_avg_fn=moving_average, use_buffers=True)
    average.requires_grad_(False)
    return average
