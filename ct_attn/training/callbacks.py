"""What happens beside the training loop: the best model kept, log, report, state, progress."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from rich.progress import Progress, TaskID
from torch import nn

from ct_attn import atomic
from ct_attn.atomic import replacing
from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.recipe import Recipe, TrainingConfig
from ct_attn.report.page import CasePicture
from ct_attn.report.run_page import write_run_report
from ct_attn.report.strip import attention_strip
from ct_attn.training.attention import KeepAttention


class KeepBest(Callback):
    """Writes the model folder whenever a validation is the best so far, by what the recipe monitors."""

    def __init__(
        self, network: nn.Module, folder: Path, recipe: Recipe, provenance: Mapping[str, str | int | float]
    ) -> None:
        self.network = network
        self.folder = folder
        self.recipe = recipe
        self.provenance = provenance
        self.monitored, self.mode = recipe.training.monitored
        self.best = -inf if self.mode == "max" else inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = float(trainer.callback_metrics[self.monitored])
        better = found > self.best if self.mode == "max" else found < self.best
        if trainer.sanity_checking or not better:
            return
        self.best = found
        dsc = float(trainer.callback_metrics["dsc"])
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
        if "validation_loss" in trainer.callback_metrics and "validation_loss" not in self.scores:
            self.scores.append("validation_loss")  # where the recipe goes by it
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


class RunReport(Callback):
    """Writes the run's HTML report after every validation, from the log and the maps kept."""

    def __init__(
        self, file: Path, recipe: Recipe, epoch_log: EpochLog, attention: KeepAttention | None
    ) -> None:
        self.file = file
        self.recipe = recipe
        self.epoch_log = epoch_log  # Lightning gives every callback a method `log`
        self.attention = attention

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "dsc" not in self.epoch_log.rows[-1]:
            return
        write_run_report(
            self.file,
            title=self.recipe.name,
            facts=self._facts(pl_module),
            log=self.epoch_log.rows,
            targets=self.recipe.label_scheme.names,
            strip=self._strip(),
        )

    def _facts(self, module: LightningModule) -> dict[str, str]:
        best = max((row for row in self.epoch_log.rows if "dsc" in row), key=lambda row: row["dsc"])
        spacing = " x ".join(
            "own" if step is None else f"{step:g}" for step in self.recipe.preprocessing.spacing_mm
        )
        patch = " x ".join(map(str, self.recipe.training.patch_size))
        size = sum(parameter.numel() for parameter in module.parameters())
        return {
            "network": f"{self.recipe.network.kind}, {size:,} parameters",
            "patches": f"{self.recipe.training.batch_size} of {patch} voxels of {spacing} mm per step",
            "epochs": f"{len(self.epoch_log.rows)} of {self.recipe.training.epochs}",
            "best validation": f"mean DSC {best['dsc']:.3f} after epoch {best['epoch'] + 1:.0f}",
        }

    def _strip(self) -> CasePicture | None:
        kept = self.attention
        if kept is None or not kept.maps:
            return None
        maps = {
            epoch: {gate: alpha.numpy() for gate, alpha in gates.items()}
            for epoch, gates in kept.maps.items()
        }
        epochs = ", ".join(map(str, maps))
        return CasePicture(
            case_id=kept.case_id,
            png=attention_strip(kept.image[..., kept.position].numpy(), kept.label.numpy(), maps),
            alt=f"An axial slice and the coefficients of the gates after epochs {epochs}",
        )


class StopEarly(EarlyStopping):
    """Ends a training that has gone long enough without a better validation, also when resumed."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0


def stop_early(training: TrainingConfig) -> list[StopEarly]:
    """The callback that a recipe asks for, if it does."""
    if training.early_stopping_epochs is None:
        return []
    patience = ceil(training.early_stopping_epochs / training.validate_every)
    monitored, mode = training.monitored
    return [StopEarly(monitored, mode=mode, patience=patience, check_on_train_epoch_end=False)]


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
