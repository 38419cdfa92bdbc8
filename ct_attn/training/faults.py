"""What ends a training that cannot go on: a loss that is no number, a device without room."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, distributed

from ct_attn.atomic import replacing
from ct_attn.errors import UserError
from ct_attn.network.build import build_network
from ct_attn.network.memory import activation_bytes_per_voxel, training_bytes
from ct_attn.recipe import Recipe
from ct_attn.training.validation import gathered
from ct_attn.volume import Shape3

#: Of a device's memory, what a training can use: the rest is the driver's and fragments.
USABLE = 0.9
#: A suggestion needs at most this share of what did not fit, whatever the estimate says of that.
LESS = 0.8
#: What activation checkpointing leaves of the memory for activations (benchmarks/networks.py).
CHECKPOINTED = 0.25
#: What validation holds of the size of a scan's logits at most: its loss has these, the
#: probabilities, the truth and one product of both at once (losses.sorensen_dice).
VALIDATION_COPIES = 4


class StopOnNonFinite(Callback):
    """Stops before the backward pass of a loss that is infinite or no number, and keeps the batch.

    Where the disk lets it, the first process writes ``file`` (safetensors: ``image``, ``label``, ``known``,
    ``start``; in its header case ids, epoch, step and loss) and raises :class:`UserError`.
    """

    def __init__(self, file: Path, *, accumulate: int) -> None:
        self.file = file
        self.accumulate = accumulate
        self.batch: Mapping[str, Any] = {}
        self.batch_index = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch, self.batch_index = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        finite = torch.isfinite(loss.detach()).to(torch.int32)
        if trainer.world_size > 1:  # one for all, or the others would wait for this one's gradients
            everywhere = finite.clone()
            distributed.all_reduce(everywhere, op=distributed.ReduceOp.MIN)
        else:
            everywhere = finite
        if everywhere:
            return
        mine = None if finite else self._tell(trainer, float(loss.detach()) * self.accumulate)
        found = next(batch for batch in gathered(mine) if batch is not None)
        if not trainer.is_global_zero:
            raise SystemExit(0)  # the first process says it
        try:
            found.write(self.file)
        except (OSError, SafetensorError) as error:  # what was found is said all the same
            raise found.error(None) from error
        raise found.error(self.file)

    def _tell(self, trainer: Trainer, loss: float) -> BadBatch:
        tensors = {name: value.cpu() for name, value in self.batch.items() if isinstance(value, Tensor)}
        return BadBatch(
            tensors=tensors,
            case_ids=tuple(self.batch["case_id"]),
            epoch=trainer.current_epoch + 1,
            step=self.batch_index // self.accumulate + 1,
            loss=loss,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BadBatch:
    """A batch whose loss is no number; ``epoch`` and ``step`` (within it) count from 1."""

    tensors: Mapping[str, Tensor]
    case_ids: tuple[str, ...]
    epoch: int
    step: int
    loss: float

    def write(self, file: Path) -> None:
        header = {
            "format": "ct_attn batch 1",
            "case_ids": json.dumps(self.case_ids),
            "epoch": str(self.epoch),
            "step": str(self.step),
            "loss": str(self.loss),
        }
        with replacing(file) as partial:
            save_file({name: value.contiguous() for name, value in self.tensors.items()}, partial, header)

    def error(self, file: Path | None) -> UserError:
        """What is said of it; ``file`` holds the batch, None where no file could be written."""
        places = (tuple(start) for start in self.tensors["start"].tolist())
        patches = ", ".join(
            f"{case_id} from voxel {place}" for case_id, place in zip(self.case_ids, places, strict=True)
        )
        kept = (
            " (the batch could not be written beside them)"
            if file is None
            else f" and at {file}, which holds the batch"
        )
        return UserError(
            f"epoch {self.epoch}, step {self.step}",
            expected="a finite loss",
            found=f"{self.loss} on the patches of {patches} (of the working grid)",
            remedy=f"look at these cases{kept}; where they are sound, start anew with a lower "
            "training.optimizer.learning_rate or with clip_norm",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine itself, had no room for what torch asked for."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def out_of_memory(
    recipe: Recipe,
    *,
    device: torch.device,
    memory_bytes: float,
    dtype: torch.dtype,
    validated: Shape3 | None = None,
) -> UserError:
    """The error of a training of ``recipe`` that ``device`` has no room for, with what to lower.

    ``validated``: the voxels of the scan that was validated then, on the working grid.
    """
    found = f"one of {memory_bytes / 2**30:.1f} GiB in all, and no room"
    if validated is not None:
        need = VALIDATION_COPIES * 4.0 * recipe.n_outputs * prod(validated)
        return UserError(
            f"{device} is out of memory in validation",
            expected=f"a device with about {need / 2**30:.2g} GiB for the logits and the loss of a scan of "
            f"{'x'.join(map(str, validated))} voxels",
            found=found,
            remedy=f"set {_coarser(recipe, need / min(USABLE * memory_bytes, LESS * need))}, "
            "or end what else runs on the device",
        )
    estimate = _Estimate.of(recipe, dtype)
    need = estimate.bytes(recipe)
    return UserError(
        f"{device} is out of memory",
        expected=f"a device with about {need / 2**30:.1f} GiB for batches of {_batch(recipe)}",
        found=found,
        remedy=_lower(recipe, estimate, min(USABLE * memory_bytes, LESS * need)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimate:
    """What a network needs: of itself, and per voxel of a batch."""

    weights_bytes: float
    bytes_per_voxel: float

    @classmethod
    def of(cls, recipe: Recipe, dtype: torch.dtype) -> _Estimate:
        config = recipe.network
        if _can_checkpoint(recipe):
            config = config.model_copy(update={"checkpointing": False})
        channels = recipe.slices.neighbours if recipe.slices else 1
        network = build_network(config, in_channels=channels, n_classes=recipe.n_outputs)
        counted = torch.bfloat16 if dtype == torch.float16 else dtype  # both are two bytes
        per_voxel = activation_bytes_per_voxel(network, dtype=counted, in_channels=channels)
        weights = training_bytes(network, bytes_per_voxel=0, n_voxels=0)
        one = training_bytes(network, bytes_per_voxel=per_voxel, n_voxels=1) - weights
        return cls(weights_bytes=weights, bytes_per_voxel=one)

    def bytes(self, recipe: Recipe) -> float:
        voxels = recipe.training.batch_size * prod(recipe.training.patch_size)
        share = CHECKPOINTED if getattr(recipe.network, "checkpointing", False) else 1.0
        return self.weights_bytes + share * self.bytes_per_voxel * voxels


def _coarser(recipe: Recipe, times: float) -> str:
    """The spacing on which a scan has ``times`` fewer voxels, in words."""
    was = recipe.preprocessing.spacing_mm
    longer = times ** (1 / sum(step is not None for step in was))  # across slices there is none
    to, of = (
        ", ".join("null" if step is None else f"{ceil(100 * step * factor) / 100:g}" for step in was)
        for factor in (longer, 1)
    )
    return f"preprocessing.spacing_mm=[{to}] (was [{of}])"


def _lower(recipe: Recipe, estimate: _Estimate, most_bytes: float) -> str:
    """What to set so that a step fits into ``most_bytes``, in words: what costs least first."""
    told: list[str] = []
    attempt = recipe
    for change in (_smaller_batches, _with_checkpointing, _smaller_patches):
        attempt, said = change(attempt, estimate, most_bytes)
        told += said
        if estimate.bytes(attempt) <= most_bytes:
            return f"set {' and '.join(told)} (about {estimate.bytes(attempt) / 2**30:.1f} GiB)"
    return "train a narrower network (network.widths), or on a device with more memory"


def _smaller_batches(recipe: Recipe, estimate: _Estimate, most_bytes: float) -> tuple[Recipe, list[str]]:
    """The largest batch that fits, else 1; more of them make a step, which stays what it was."""
    training = recipe.training
    smaller = [size for size in range(training.batch_size - 1, 0, -1) if training.batch_size % size == 0]
    for size in smaller:
        times = training.batch_size // size
        changed = _with_training(recipe, batch_size=size)
        if estimate.bytes(changed) <= most_bytes or size == 1:
            accumulate = training.optimizer.accumulate
            return changed, [
                f"training.batch_size={size} (was {training.batch_size})",
                f"training.optimizer.accumulate={accumulate * times} (was {accumulate})",
                f"training.batches_per_epoch={training.batches_per_epoch * times} "
                f"(was {training.batches_per_epoch})",
            ]
    return recipe, []


def _with_checkpointing(recipe: Recipe, estimate: _Estimate, most_bytes: float) -> tuple[Recipe, list[str]]:
    if not _can_checkpoint(recipe) or getattr(recipe.network, "checkpointing", True):
        return recipe, []
    network = recipe.network.model_copy(update={"checkpointing": True})
    return recipe.model_copy(update={"network": network}), ["network.checkpointing=true"]


def _smaller_patches(recipe: Recipe, estimate: _Estimate, most_bytes: float) -> tuple[Recipe, list[str]]:
    """The longest side shorter by a step of the network's, until the patch fits or is the least."""
    steps = recipe.size_multiple
    sides = list(recipe.training.patch_size)
    attempt = recipe
    while estimate.bytes(attempt) > most_bytes:
        longer = [axis for axis in range(3) if sides[axis] > steps[axis]]
        if not longer:
            break
        sides[max(longer, key=lambda axis: sides[axis])] -= steps[max(longer, key=lambda axis: sides[axis])]
        attempt = _with_training(recipe, patch_size=(sides[0], sides[1], sides[2]))
    was = "x".join(map(str, recipe.training.patch_size))
    return attempt, [f"training.patch_size=[{', '.join(map(str, sides))}] (was {was})"]


def _with_training(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


def _can_checkpoint(recipe: Recipe) -> bool:
    return hasattr(recipe.network, "checkpointing")


def _batch(recipe: Recipe) -> str:
    return f"{recipe.training.batch_size} patches of {'x'.join(map(str, recipe.training.patch_size))} voxels"
