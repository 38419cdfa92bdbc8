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
from ct_attn.losses import SegmentationLoss
from ct_attn.network.build import build_network
from ct_attn.network.segmenter import Supervised
from ct_attn.network.slicewise import core_of
from ct_attn.network.transfer import all_but, freeze
from ct_attn.recipe import Recipe
from ct_attn.report.run_page import RATIOS
from ct_attn.training.confusion import column_of, count_voxels, predicted_labels, ratios
from ct_attn.training.optimisation import make_average, make_optimizer, make_schedule
from ct_attn.training.validation import (
    ValidatedCase,
    from_all_processes,
    left_out,
    means,
    score_labels,
    worst_first,
)
from ct_attn.volume import Shape3

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
        self.counted = torch.zeros(0)  # voxels of the epoch's patches, as count_voxels gives them
        self.validated: list[ValidatedCase] = []  # of this process, then of all
        self.worst: list[ValidatedCase] = []  # of this process, with their labels
        self.scan_shape: Shape3 | None = None  # of the scan that is validated now

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
            self._log_training_ratios()

    def _even_out_buffers(self) -> None:
        """Batch statistics as the first process has them, on all: they are validated, kept and saved."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                distributed.broadcast(buffer, src=0)

    def _log_training_ratios(self) -> None:
        """The ratios of the epoch's patches, their voxels pooled over all batches and processes."""
        if self.trainer.world_size > 1:
            distributed.all_reduce(self.counted)
        per_target = torch.tensor([ratios(counts) for counts in self.counted.tolist()])
        self._log_ratios(dict(zip(RATIOS, per_target.T, strict=True)), prefix="training_")

    def _log_ratios(self, per_target: dict[str, Tensor], *, prefix: str = "") -> None:
        """Each ratio's mean over the targets that have one, then every target's."""
        for ratio in RATIOS:
            values = per_target[ratio]
            names = column_of(ratio, self.recipe.label_scheme.names, prefix=prefix)
            for name, value in zip(names, [values.nanmean(), *values], strict=True):
                self.log(name, value, on_step=False, on_epoch=True, batch_size=1)

    def on_train_epoch_start(self) -> None:
        n_targets = self.recipe.n_classes - 1
        self.counted = torch.zeros(n_targets, 3, dtype=torch.int64, device=self.device)
        freeze(core_of(self.network), self.frozen_parts(self.current_epoch))

    def frozen_parts(self, epoch: int) -> list[str]:
        """The parts of the network that do not train in ``epoch``."""
        training = self.recipe.training
        stage = training.first_stage
        waiting = all_but(core_of(self.network), stage.parts) if stage and epoch < stage.epochs else []
        return [*training.freeze, *waiting]

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last_3d)
        supervised = self.network.supervised(image)
        loss = supervised_loss(self.loss, supervised, batch["label"], batch["known"])
        with torch.no_grad():
            found = predicted_labels(supervised.prediction, self.recipe.loss)
            self.counted += count_voxels(found, batch["label"], batch["known"])
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
        self.validated, self.worst = [], []

    def validation_step(self, case: dict[str, Any], batch_index: int) -> None:
        i, j, k = case["image"].shape[2:]
        self.scan_shape = (i, j, k)
        logits = over_windows(
            lambda patch: self.evaluated(patch.contiguous(memory_format=torch.channels_last_3d)),
            case["image"][0, 0].float(),
            self.recipe,
            n_values=self.recipe.n_outputs,
        )
        self.log(
            "validation_loss",
            self.loss(logits[None], case["label"][0], case["known"]),
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=self.trainer.world_size > 1,
        )
        labels = predicted_labels(logits[None], self.recipe.loss)[0]
        known = case["known"][0, 1:].tolist()
        scores = score_labels(labels, case["label"][0, 0], known, case["spacing_mm"][0].tolist())
        done = ValidatedCase(
            number=int(case["number"]), case_id=case["case_id"][0], scores=scores, labels=labels.cpu()
        )
        self.validated.append(done.without_labels())
        self.worst = worst_first([*self.worst, done])[:WORST_CASES]
        self.scan_shape = None

    def on_validation_epoch_end(self) -> None:
        """Means over the cases that label a target in full; a target that none labels has no mean."""
        self.validated = from_all_processes(self.validated)
        per_target = means(self.validated)
        self._log_ratios(per_target)
        for column, values in {"s2s_mm": per_target["s2s_mm"], **left_out(self.validated)}.items():
            for name, value in zip(self.recipe.label_scheme.names, values, strict=True):
                self.log(f"{column}_{name}", value)

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
