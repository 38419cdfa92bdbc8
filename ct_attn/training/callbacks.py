"""What happens beside the training loop: the best model kept, the log, the state, progress."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import Progress, TaskID
from torch import nn

from ct_attn import atomic
from ct_attn.atomic import replacing
from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.recipe import Recipe


class KeepBest(Callback):
    """Writes the model folder whenever the mean validation DSC reaches a new best."""

    def __init__(
        self, network: nn.Module, folder: Path, recipe: Recipe, provenance: Mapping[str, str | int | float]
    ) -> None:
        self.network = network
        self.folder = folder
        self.recipe = recipe
        self.provenance = provenance
        self.best = -1.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        dsc = float(trainer.callback_metrics["dsc"])
        if trainer.sanity_checking or dsc <= self.best:
            return
        self.best = dsc
        provenance = {**self.provenance, "epoch": trainer.current_epoch, "validation_dsc": round(dsc, 6)}
        weights = self.network.state_dict()
        save_checkpoint(Checkpoint(weights=weights, recipe=self.recipe, provenance=provenance), self.folder)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class EpochLog(Callback):
    """One CSV row per epoch: loss, learning rate, and DSC where the epoch was validated.

    The rows are part of the saved state, so a resumed run's log is that of one that was
    never stopped. (Lightning's CSVLogger deletes the log it finds.)
    """

    def __init__(self, file: Path, targets: Sequence[str]) -> None:
        self.file = file
        self.scores = ["dsc", *(f"dsc_{target}" for target in targets)]
        self.rows: list[dict[str, float]] = []
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        measured = ["loss", *(self.scores if self.validated else [])]
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        values = {name: float(trainer.callback_metrics[name]) for name in measured}
        self.rows.append({"epoch": trainer.current_epoch, "learning_rate": rate, **values})
        self.validated = False
        text = io.StringIO()
        writer = csv.DictWriter(text, ["epoch", "learning_rate", "loss", *self.scores], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic.write_text(self.file, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class SaveState(Callback):
    """Writes at the end of every epoch what ``--resume`` needs, whole or not at all."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with replacing(self.file) as partial:
            trainer.save_checkpoint(partial)


class ShowProgress(Callback):
    """One bar over all batches, with the loss and the last validation DSC."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = int(trainer.max_epochs or 0) * int(trainer.num_training_batches)
        self.task = self.progress.add_task("training", total=total, completed=trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        assert self.task is not None
        loss = float(outputs["loss"])
        dsc = trainer.callback_metrics.get("dsc")
        note = f"epoch {trainer.current_epoch + 1}, loss {loss:.3f}"
        if dsc is not None:
            note += f", DSC {float(dsc):.3f}"
        self.progress.update(self.task, completed=trainer.global_step, description=f"training, {note}")
