"""The training loop's content, as Lightning wants it: step, validation, optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, distributed, nn
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
from ct_attn.training.validation import (
    ValidatedCase,
    from_all_processes,
    means,
    score_labels,
    worst_first,
)

#: Validation cases whose predictions are kept for the run's report.
WORST_CASES = 3


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
        self.validated: list[ValidatedCase] = []  # of this process, then of all
        self.worst: list[ValidatedCase] = []  # of this process, with their labels
        self.is_validating = False

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the average of its weights where there is one."""
        return self.network if self.average is None else self.average.module

    def on_train_start(self) -> None:
        self.averaged_steps = self.trainer.global_step  # of a run that goes on

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Whatever a network may draw follows from its place in the training, and from nothing before."""
        place = (self.recipe.training.seed, self.current_epoch, batch_index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """Average where a step was taken: with ``accumulate`` not every batch does."""
        if self.average is not None and self.trainer.global_step != self.averaged_steps:
            self.average.update_parameters(self.network)
        self.averaged_steps = self.trainer.global_step
        if self.trainer.is_last_batch:
            self._even_out_buffers()

    def _even_out_buffers(self) -> None:
        """Batch statistics as the first process has them, on all: they are validated, kept and saved."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                distributed.broadcast(buffer, src=0)

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
        self.log(
            "loss",
            loss,
            on_step=False,
            on_epoch=True,
            batch_size=len(image),
            sync_dist=self.trainer.world_size > 1,
        )
        return loss

    def on_validation_epoch_start(self) -> None:
        self.validated, self.worst, self.is_validating = [], [], True

    def validation_step(self, case: dict[str, Any], batch_index: int) -> None:
        logits = over_windows(
            lambda patch: self.evaluated(patch.contiguous(memory_format=torch.channels_last_3d)),
            case["image"][0, 0].float(),
            self.recipe,
            n_values=self.recipe.n_outputs,
        )
        if self.recipe.training.best_by == "loss":
            loss = self.loss(logits[None], case["label"][0], case["known"])
            self.log(
                "validation_loss",
                loss,
                on_step=False,
                on_epoch=True,
                batch_size=1,
                sync_dist=self.trainer.world_size > 1,
            )
        labels = class_logits(logits, self.recipe.loss).argmax(0).to(torch.uint8)
        known = case["known"][0, 1:].tolist()
        dsc, s2s_mm = score_labels(labels, case["label"][0, 0], known, case["spacing_mm"][0].tolist())
        done = ValidatedCase(
            number=int(case["number"]),
            case_id=case["case_id"][0],
            dsc=dsc,
            s2s_mm=s2s_mm,
            labels=labels.cpu(),
        )
        self.validated.append(done.without_labels())
        self.worst = worst_first([*self.worst, done])[:WORST_CASES]

    def on_validation_epoch_end(self) -> None:
        """Means over the cases that label a target in full; a target that none labels has no mean."""
        self.is_validating = False
        self.validated = from_all_processes(self.validated)
        dsc, s2s_mm = means(self.validated)
        names = self.recipe.label_scheme.names
        self.log_dict({f"dsc_{name}": mean for name, mean in zip(names, dsc, strict=True)})
        self.log_dict({f"s2s_mm_{name}": mean for name, mean in zip(names, s2s_mm, strict=True)})
        self.log("dsc", dsc.nanmean())

    def configure_optimizers(self) -> Any:
        training = self.recipe.training
        optimizer = make_optimizer(training.optimizer, self.network.parameters())
        schedule = make_schedule(optimizer, training, n_processes=self.trainer.world_size)
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
