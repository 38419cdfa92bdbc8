"""What people see of a training: the bar, the curves, the report, TensorBoard."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import Progress, TaskID

from ct_attn import atomic
from ct_attn.recipe import Recipe
from ct_attn.report.page import CasePicture
from ct_attn.report.progress_plot import progress_picture
from ct_attn.report.run_page import WorstCase, write_run_report
from ct_attn.report.strip import attention_strip
from ct_attn.training.attention import KeepAttention
from ct_attn.training.callbacks import EpochLog, KeepBest
from ct_attn.training.worst import KeepWorst


class RunPictures:
    """The run's ``progress.png`` and HTML report, of what log, attention and validation keep."""

    def __init__(
        self,
        *,
        picture: Path,
        report: Path,
        recipe: Recipe,
        facts: dict[str, str],
        log: EpochLog,
        best: KeepBest,
        worst: KeepWorst,
        attention: KeepAttention | None,
    ) -> None:
        self.picture = picture
        self.report = report
        self.recipe = recipe
        self.facts = facts
        self.log = log
        self.best = best
        self.worst = worst
        self.attention = attention
        self.written_rows = 0

    def write(self) -> None:
        """After a validation, or where a run goes on; between validations nothing new is to be seen."""
        rows = self.log.rows
        if not any("dsc" in row for row in rows) or ("dsc" not in rows[-1] and self.written_rows):
            return
        names = self.recipe.label_scheme.names
        atomic.write_bytes(self.picture, progress_picture(rows, names, title=self.recipe.name))
        write_run_report(
            self.report,
            title=self.recipe.name,
            facts=self.facts | self._standing(),
            log=rows,
            targets=names,
            worst=[WorstCase(**case) for case in self.worst.cases],
            pictures=self._pictures(),
            strip=self._strip(),
        )
        self.written_rows = len(rows)

    def _standing(self) -> dict[str, str]:
        kept = self.log.rows[int(self.best.provenance["epoch"])]  # of the model that is kept
        dsc = "no DSC of any organ" if isnan(kept["dsc"]) else f"mean DSC {kept['dsc']:.3f}"
        loss = f"mean loss {kept['validation_loss']:.3f}, " if self.recipe.training.best_by == "loss" else ""
        return {
            "epochs": f"{len(self.log.rows)} of {self.recipe.training.epochs}",
            "best validation": f"{loss}{dsc} after epoch {kept['epoch'] + 1:.0f}",
        }

    def _pictures(self) -> list[CasePicture]:
        return [
            CasePicture(
                case_id=case_id,
                png=png.numpy().tobytes(),
                alt=f"Slices of {case_id} with the contours of truth and prediction",
            )
            for case_id, png in self.worst.pictures.items()
        ]

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


def run_facts(recipe: Recipe, *, n_parameters: int, n_processes: int) -> dict[str, str]:
    """What the report says of how a run is trained."""
    training = recipe.training
    spacing = " x ".join("own" if step is None else f"{step:g}" for step in recipe.preprocessing.spacing_mm)
    patch = " x ".join(map(str, training.patch_size))
    facts = {
        "network": f"{recipe.network.kind}, {n_parameters:,} parameters",
        "patches": f"{training.batch_size} of {patch} voxels of {spacing} mm per batch",
        "batches per step": str(training.optimizer.accumulate * n_processes),
    }
    if recipe.slices is not None:
        facts["slices"] = f"{recipe.slices.plane}, channels: {recipe.slices.neighbours}"
    if recipe.loss.activation == "sigmoid":
        facts["outputs"] = "one sigmoid for each organ"
    return facts | ({"processes": str(n_processes)} if n_processes > 1 else {})


class Board:
    """The log for TensorBoard. The folder is made anew where a run goes on, so no step is there twice."""

    def __init__(self, folder: Path, log: EpochLog) -> None:
        self.folder = folder
        self.log = log
        self.writer: Any = None
        self.written_rows = 0

    def write(self) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra

            shutil.rmtree(self.folder, ignore_errors=True)
            self.writer = SummaryWriter(str(self.folder))
        for row in self.log.rows[self.written_rows :]:
            for name, value in row.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, int(row["epoch"]) + 1)
        self.written_rows = len(self.log.rows)
        self.writer.flush()


def board(folder: Path, log: EpochLog) -> list[Board]:
    """The board, where TensorBoard is installed."""
    return [Board(folder, log)] if find_spec("tensorboard") else []


class ShowProgress(Callback):
    """One bar over all batches, with the loss and the last validation's DSC per organ."""

    def __init__(self, progress: Progress, log: EpochLog) -> None:
        self.progress = progress
        self.epoch_log = log  # Lightning gives every callback a method `log`
        self.task: TaskID | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = int(trainer.max_epochs or 0)
        batches = int(trainer.num_training_batches)
        self.task = self.progress.add_task(
            "training", total=epochs * batches, completed=trainer.current_epoch * batches
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.task is not None
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        note = f"epoch {trainer.current_epoch + 1}, loss {float(outputs['loss']):.3f}{self._scores()}"
        self.progress.update(self.task, completed=done, description=f"training, {note}")

    def _scores(self) -> str:
        last = next((row for row in reversed(self.epoch_log.rows) if "dsc" in row), None)
        if last is None:
            return ""
        names = [name for name in last if name.startswith("dsc_")]
        return ", DSC " + ", ".join(f"{name.removeprefix('dsc_')} {last[name]:.3f}" for name in names)
