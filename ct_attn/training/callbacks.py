"""What is kept beside the training loop: best and last model, log, state, and what follows from them.

A callback that keeps something holds it in memory and in the saved state, and writes
its file after the state: a kill at any moment leaves files that the state can put
right (:class:`SaveState`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import ceil, inf, isnan
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ct_attn import atomic
from ct_attn.checkpoint import Checkpoint, save_checkpoint, saved_digest
from ct_attn.errors import UserError
from ct_attn.recipe import Recipe
from ct_attn.report.run_page import LEFT_OUT
from ct_attn.training.confusion import columns
from ct_attn.training.optimisation import make_plateau
from ct_attn.training_config import TrainingConfig


class Written(Protocol):
    """Keeps something whose file ``write`` brings into step with it; what is right already stays."""

    def write(self) -> None: ...


class KeepBest(Callback):
    """Keeps the weights of the best validation by what the recipe goes by; they make the model folder."""

    def __init__(
        self, network: nn.Module, folder: Path, recipe: Recipe, provenance: Mapping[str, str | int | float]
    ) -> None:
        self.network = network
        self.folder = folder
        self.recipe = recipe
        self.provenance = dict(provenance)
        self.monitored, self.mode = recipe.training.monitored
        self.best = -inf if self.mode == "max" else inf
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = float(trainer.callback_metrics[self.monitored])
        better = found > self.best if self.mode == "max" else found < self.best
        # A validation without any organ has no DSC: the first of those is kept until one has.
        if trainer.sanity_checking or not (better or not self.weights):
            return
        self.best = self.best if isnan(found) else found
        dsc = float(trainer.callback_metrics["dsc"])
        self.provenance |= {"epoch": trainer.current_epoch, "validation_dsc": round(dsc, 6)}
        if isnan(dsc):  # which JSON has no word for
            del self.provenance["validation_dsc"]
        # Copies: the network trains on before they are written.
        self.weights = {
            name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()
        }

    def write(self) -> None:
        if not self.weights:
            return
        _write_model(self.folder, self.weights, self.recipe, self.provenance)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "weights": self.weights, "provenance": self.provenance}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.weights = state_dict["weights"]
        self.provenance = state_dict["provenance"]


class KeepLast(Callback):
    """Makes a model folder of the newest epoch's weights, those that would be validated.

    Its provenance says which epoch that was, and whether the training was then ``finished``:
    by its number of epochs, or by early stopping.
    """

    def __init__(
        self, network: nn.Module, folder: Path, recipe: Recipe, provenance: Mapping[str, str | int | float]
    ) -> None:
        self.network = network
        self.folder = folder
        self.recipe = recipe
        self.provenance = dict(provenance)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        self.provenance |= {"epoch": trainer.current_epoch, "finished": bool(done)}

    def write(self) -> None:
        """Called where the network is what the state says: after an epoch, or when it was read."""
        if "epoch" not in self.provenance:
            return  # a state of before this was kept
        _write_model(self.folder, self.network.state_dict(), self.recipe, self.provenance)

    def state_dict(self) -> dict[str, Any]:
        return {"provenance": self.provenance}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.provenance = state_dict["provenance"]


def _write_model(
    folder: Path, weights: dict[str, Tensor], recipe: Recipe, provenance: dict[str, str | int | float]
) -> None:
    """Make ``folder`` the model of these weights, unless it is."""
    model = Checkpoint(weights=weights, recipe=recipe, provenance=provenance)
    if saved_digest(folder) != model.digest:
        save_checkpoint(model, folder)


class EpochLog(Callback):
    """One row per epoch: learning rate, loss and ratios of the training patches, and what the validation
    found where there was one. docs/training.md says how each is averaged.

    (Lightning's CSVLogger deletes the log it finds.)
    """

    def __init__(self, file: Path, targets: Sequence[str]) -> None:
        self.file = file
        self.training = ["loss", *columns(targets, prefix="training_")]
        self.validation = [
            "validation_loss",
            *columns(targets),
            *(
                f"{column}_{target}"
                for column in ("s2s_mm", *(f"n_{state}" for state in LEFT_OUT))
                for target in targets
            ),
        ]
        self.rows: list[dict[str, float]] = []
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        measured = [*self.training, *(self.validation if self.validated else ())]
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        values = {name: float(trainer.callback_metrics[name]) for name in measured}
        self.rows.append({"epoch": trainer.current_epoch, "learning_rate": rate, **values})
        self.validated = False

    def write(self) -> None:
        text = io.StringIO()
        names = ["epoch", "learning_rate", *self.training, *self.validation]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        if not self.file.is_file() or self.file.read_text(encoding="utf-8") != text.getvalue():
            atomic.write_text(self.file, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class FollowPlateau(Callback):
    """Lowers the learning rate when validations get no better, before the epoch's state is saved.

    Lightning would do so after all callbacks: what it decides would not be in the state.
    """

    def __init__(self, training: TrainingConfig) -> None:
        self.training = training
        self.plateau: ReduceLROnPlateau | None = None
        self.loaded: dict[str, Any] | None = None
        self.validated = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.plateau = make_plateau(trainer.optimizers[0], self.training)
        if self.loaded is not None:
            self.plateau.load_state_dict(self.loaded)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.validated:
            assert self.plateau is not None
            self.plateau.step(float(trainer.callback_metrics[self.training.monitored[0]]))
        self.validated = False

    def state_dict(self) -> dict[str, Any]:
        return {} if self.plateau is None else dict(self.plateau.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict


def follow_plateau(training: TrainingConfig) -> list[FollowPlateau]:
    """The callback of a recipe whose learning rate follows the validation."""
    return [FollowPlateau(training)] if training.optimizer.schedule == "plateau" else []


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
    return [
        StopEarly(
            monitored,
            mode=mode,
            patience=patience,
            check_finite=monitored != "dsc",  # which is nan where truth and masks are all empty
            check_on_train_epoch_end=False,
        )
    ]


class SaveState(Callback):
    """Saves at the end of every epoch what ``--resume`` needs, then writes the files that follow from it.

    Where a run goes on, these files are first brought into step with the state: of an
    epoch that a kill cut off nothing remains. Rank zero alone writes.
    """

    def __init__(self, file: Path, following: Sequence[Written]) -> None:
        self.file = file
        self.following = following

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.file.is_file():
            self._write_following(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.file)
        self._write_following(trainer)
        trainer.strategy.barrier("the files of an epoch")  # nobody leaves while the first one writes

    def _write_following(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        try:
            for kept in self.following:
                kept.write()
        except OSError as error:
            raise UserError(
                error.filename or self.file.parent,
                expected="a disk that takes the files of the run",
                found=error.strerror or str(error),
                remedy="make room and go on with --resume; the state is saved",
            ) from error
