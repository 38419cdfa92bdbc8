"""How long a training step of a recipe takes on this machine, as ``ct-attn train`` makes it.

    python benchmarks/step_seconds.py pipelines/phantom/unet.yaml --data COHORT/manifest.json -o step.json

The recipe's module in Lightning's Trainer, on patches drawn from the manifest's cases between
the steps. The first steps, which find memory and kernels, are not counted; then as many
as fill ``--seconds``, of which the median counts. What a training does beside its steps (starting, preparing
cases, saving, validating) is not in it, nor is what a first stage with frozen parts spares.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from ct_attn.device import choose_device, choose_precision
from ct_attn.heap import keep_freed_memory
from ct_attn.manifest import choose_fold, read_manifest
from ct_attn.recipe import Recipe, read_recipe
from ct_attn.train import LIGHTNING_PRECISION
from ct_attn.training.cache import CachedCase, choose_folder, fill
from ct_attn.training.cases import locate
from ct_attn.training.data import Batches
from ct_attn.training.faults import StopOnNonFinite
from ct_attn.training.module import SegmentationModule

NOT_COUNTED, AT_LEAST = 5, 5


class Clock(Callback):
    """When each batch was done; stops the training when those counted fill ``seconds``, if given."""

    def __init__(self, seconds: float = inf) -> None:
        self.seconds = seconds
        self.done: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.done.append(time.perf_counter())
        counted = self.done[NOT_COUNTED - 1 :]
        if len(counted) > AT_LEAST and counted[-1] - counted[0] >= self.seconds:
            trainer.should_stop = True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="manifest")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="FIELD=VALUE")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    changes = [*options.changes, "training.first_stage=null"]
    steps = step_seconds(read_recipe(options.recipe, changes), options.data, options.seconds)
    result = {
        "step_s": statistics.median(steps),
        "steps_s": [round(one, 4) for one in steps],
        "threads": torch.get_num_threads(),
    }
    options.output.write_text(json.dumps(result) + "\n", encoding="utf-8")


def step_seconds(recipe: Recipe, manifest_path: Path, seconds: float) -> list[float]:
    """Of every step counted."""
    warnings.filterwarnings("ignore", module="lightning")
    device = choose_device("auto")
    training, validation = prepared(recipe, manifest_path)
    seed_everything(recipe.training.seed, verbose=False)
    module = SegmentationModule(recipe)
    if device.type == "cpu":
        keep_freed_memory()  # as ct_attn.train does
    clock = Clock(seconds)
    nowhere = Path(tempfile.gettempdir()) / "unused"
    trainer = Trainer(
        accelerator=device.type, devices=1,
        precision=LIGHTNING_PRECISION[choose_precision(recipe.training.precision, device)],
        accumulate_grad_batches=recipe.training.optimizer.accumulate,
        gradient_clip_val=recipe.training.optimizer.clip_norm,
        max_epochs=-1, reload_dataloaders_every_n_epochs=1, limit_val_batches=0, logger=False,
        callbacks=[StopOnNonFinite(nowhere, accumulate=recipe.training.optimizer.accumulate), clock],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, Batches(recipe, training, validation))
    return differences(clock.done[NOT_COUNTED - 1 :])


def differences(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def prepared(recipe: Recipe, manifest_path: Path) -> list[list[CachedCase]]:
    """The cases to train on, and those of fold 0, in the cache that ``ct-attn train`` uses too."""
    manifest = read_manifest(manifest_path)
    folder = choose_folder(manifest_path, otherwise=manifest_path.parent / "cache")
    return [
        fill(
            locate(cases, manifest_path), folder, source=manifest.label_scheme,
            target=recipe.label_scheme, preprocessing=recipe.preprocessing,
        )
        for cases in choose_fold(manifest, 0, path=manifest_path)
    ]  # fmt: skip


if __name__ == "__main__":
    main()
