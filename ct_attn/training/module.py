"""The training loop's content, as Lightning wants it: step, validation, optimiser."""

from __future__ import annotations

from math import nan
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from ct_attn.device import channels_last
from ct_attn.inference.sliding_window import over_windows
from ct_attn.losses import SegmentationLoss, class_logits
from ct_attn.network.build import build_network
from ct_attn.network.segmenter import Supervised
from ct_attn.network.slicewise import core_of
from ct_attn.network.transfer import all_but, freeze
from ct_attn.recipe import Recipe
from ct_attn.training.optimisation import make_average, make_optimizer, make_schedule


class SegmentationModule(LightningModule):
    """Trains a recipe's network on patches and validates it on whole prepared volumes."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        network = build_network(
            recipe.network, in_channels=1, n_classes=recipe.n_outputs, slices=recipe.slices
        )
        self.network = channels_last(network)
        self.loss = SegmentationLoss(recipe.loss)
        decay = recipe.training.ema_decay
        self.average = None if decay is None else make_average(self.network, decay)
        self.averaged_steps = 0
        self.validation_dsc: list[list[float]] = []

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the average of its weights where there is one."""
        return self.network if self.average is None else self.average.module

    def on_train_start(self) -> None:
        self.averaged_steps = self.trainer.global_step  # of a run that goes on

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """Average where a step was taken: with ``accumulate`` not every batch does."""
        if self.average is not None and self.trainer.global_step != self.averaged_steps:
            self.average.update_parameters(self.network)
        self.averaged_steps = self.trainer.global_step

    def on_train_epoch_start(self) -> None:
        freeze(core_of(self.network), self.frozen_parts(self.current_epoch))

    def frozen_parts(self, epoch: int) -> list[str]:
        """The parts of the network that do not train in ``epoch``."""
        training = self.recipe.training
        stage = training.first_stage
        waiting = all_but(core_of(self.network), stage.parts) if stage and epoch < stage.epochs else []
        return [*training.freeze, *waiting]

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last_3d)
        loss = supervised_loss(self.loss, self.network.supervised(image), batch["label"], batch["known"])
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(image))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.validation_dsc = []

    def validation_step(self, case: dict[str, Any], batch_index: int) -> None:
        logits = over_windows(
            lambda patch: self.evaluated(patch.contiguous(memory_format=torch.channels_last_3d)),
            case["image"][0, 0].float(),
            self.recipe,
            n_values=self.recipe.n_outputs,
        )
        if self.recipe.training.best_by == "loss":
            loss = self.loss(logits[None], case["label"][0], case["known"])
            self.log("validation_loss", loss, on_step=False, on_epoch=True, batch_size=1)
        logits = class_logits(logits, self.recipe.loss)
        dsc = dsc_per_class(logits.argmax(0), case["label"][0, 0], self.recipe.n_classes)
        known = case["known"][0, 1:].tolist()
        self.validation_dsc.append([d if fully else nan for d, fully in zip(dsc, known, strict=True)])

    def on_validation_epoch_end(self) -> None:
        """Means over the cases that label a target in full; a target that none labels has no mean."""
        means = torch.tensor(self.validation_dsc).nanmean(0)
        for name, mean in zip(self.recipe.label_scheme.names, means, strict=True):
            self.log(f"dsc_{name}", mean)
        self.log("dsc", means.nanmean())

    def configure_optimizers(self) -> Any:
        training = self.recipe.training
        optimizer = make_optimizer(training.optimizer, self.network.parameters())
        schedule = make_schedule(optimizer, training)
        return optimizer if schedule is None else {"optimizer": optimizer, "lr_scheduler": schedule}


def supervised_loss(loss: SegmentationLoss, supervised: Supervised, labels: Tensor, known: Tensor) -> Tensor:
    """The weighted sum of ``loss`` over all predictions, each against labels of its size.

    ``labels`` [B, ...] at full size; where a prediction is smaller they are thinned out.
    """
    total = torch.zeros((), device=labels.device) if supervised.extra is None else supervised.extra.float()
    for logits, weight in zip(supervised.logits, supervised.weights, strict=True):
        size = tuple(logits.shape[2:])
        total = total + weight * loss(logits, thinned(labels, size), known)
    return total


def thinned(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """``labels`` [B, ...] on the coarser grid ``size``: of each block the voxel nearest its centre."""
    if tuple(labels.shape[1:]) == size:
        return labels
    coarse = functional.interpolate(labels[:, None].float(), size, mode="nearest-exact")
    return coarse[:, 0].to(labels.dtype)


def dsc_per_class(predicted: Tensor, truth: Tensor, n_classes: int) -> list[float]:
    """DSC of the classes 1 to ``n_classes`` - 1; an absent class that stays absent counts 1."""
    scores = []
    for code in range(1, n_classes):
        p, t = predicted == code, truth == code
        size = int(p.sum() + t.sum())
        scores.append(2 * int((p & t).sum()) / size if size else 1.0)
    return scores
