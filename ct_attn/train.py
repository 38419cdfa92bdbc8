"""The step from a manifest and a recipe to a trained model."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.pytorch import Trainer
from rich.progress import Progress

from ct_attn import __version__, atomic
from ct_attn.device import choose_device, choose_precision
from ct_attn.errors import UserError
from ct_attn.heap import keep_freed_memory
from ct_attn.manifest import Manifest, choose_fold, file_digest, read_manifest
from ct_attn.network.transfer import require_parts
from ct_attn.recipe import Recipe, write_recipe
from ct_attn.training.attention import keep_attention
from ct_attn.training.cache import CachedCase, choose_folder, fill
from ct_attn.training.callbacks import EpochLog, KeepBest, RunReport, SaveState, ShowProgress, stop_early
from ct_attn.training.cases import CaseFiles, check_labelled, locate
from ct_attn.training.data import Batches
from ct_attn.training.module import SegmentationModule
from ct_attn.training.start import Start, take_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where a training run keeps what it makes."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def record(self) -> Path:
        """What the run was started with; a resumed run must match it."""
        return self.path / "run.json"

    @property
    def log(self) -> Path:
        return self.path / "log.csv"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def state(self) -> Path:
        return self.path / "state.ckpt"

    @property
    def cache(self) -> Path:
        """Prepared cases, where there is no better place; no sign of a run."""
        return self.path / "cache"


def train(
    recipe: Recipe,
    manifest_path: Path,
    output: Path,
    *,
    progress: Progress,
    fold: int = 0,
    start: Start | None = None,
    resume: bool = False,
    device: str = "auto",
    cache: Path | None = None,
) -> Path:
    """Train ``recipe`` on all folds but ``fold`` and return the folder of the best model.

    The weights are drawn from the recipe's seed, save those that ``start`` names. The
    prepared cases are kept in the folder ``cache``; by default it lies beside the
    manifest, or where that cannot be written, in ``output``.

    Writes into ``output``: ``model/`` (best validation DSC), ``recipe.yaml``,
    ``run.json``, ``log.csv``, ``report.html`` and ``state.ckpt``. Raises :class:`UserError` when
    the manifest, its files or the output folder cannot be used.
    """
    run = RunFolder(path=output)
    manifest = read_manifest(manifest_path)
    start = start or Start()
    record = {**_record(recipe, manifest_path, fold), **start.digests()}
    _claim(run, record, resume=resume)
    module = _module(recipe, start, progress)
    sides = choose_fold(manifest, fold, path=manifest_path)
    check_labelled(manifest.training, recipe.label_scheme, manifest_path)
    files = [locate(cases, manifest_path) for cases in sides]
    folder = cache or choose_folder(manifest_path, otherwise=run.cache)
    training, validation = _prepare(files, recipe, manifest, folder, progress)
    write_recipe(recipe, run.recipe)
    atomic.write_text(run.record, json.dumps(record, indent=1) + "\n")
    _quiet_lightning()
    _fit(module, Batches(recipe, training, validation), run, record, progress, device)
    return run.model


def _record(recipe: Recipe, manifest_path: Path, fold: int) -> dict[str, str | int]:
    return {
        "version": __version__,
        "torch": torch.__version__,
        "manifest_digest": file_digest(manifest_path),
        "fold": fold,
        "recipe": recipe.model_dump_json(),
    }


def _claim(run: RunFolder, record: dict[str, str | int], *, resume: bool) -> None:
    """Make sure that ``run`` is new, or when resuming, that it is the same run."""
    if not resume:
        if run.path.exists() and any(path != run.cache for path in run.path.iterdir()):
            raise UserError(
                run.path,
                expected="a new or empty output folder",
                found="files in it",
                remedy="choose another -o, or add --resume to go on with that run",
            )
        return
    if not run.record.is_file() or not run.state.is_file():
        return  # stopped before the end of its first epoch, or never started: begins anew
    earlier = json.loads(run.record.read_text(encoding="utf-8"))
    changed = sorted(key for key in record | earlier if earlier.get(key) != record.get(key))
    if changed:
        raise UserError(
            run.path,
            expected="the run that --resume goes on with",
            found=f"one with another {', '.join(changed)}",
            remedy="give the same recipe, manifest and fold, or choose another -o",
        )


def _prepare(
    sides: list[list[CaseFiles]], recipe: Recipe, manifest: Manifest, folder: Path, progress: Progress
) -> list[list[CachedCase]]:
    """The cases of both sides of a fold, in the cache ``folder``."""
    progress.console.print(f"prepared cases are kept in {folder}", markup=False, soft_wrap=True)
    task = progress.add_task("preparing cases", total=sum(map(len, sides)))
    return [
        fill(
            cases,
            folder,
            source=manifest.label_scheme,
            target=recipe.label_scheme,
            preprocessing=recipe.preprocessing,
            on_case=lambda: progress.advance(task),
        )
        for cases in sides
    ]


def _module(recipe: Recipe, start: Start, progress: Progress) -> SegmentationModule:
    """The network with its first weights; the parts that the recipe freezes are there."""
    lightning.seed_everything(recipe.training.seed, verbose=False)
    module = SegmentationModule(recipe)
    for line in take_weights(module.network, recipe, start):
        progress.console.print(line, markup=False)
    try:
        frozen = module.frozen_parts(0)
        require_parts(module.network, frozen)
    except ValueError as error:
        raise UserError(
            recipe.name,
            expected="parts of the network in training.freeze and training.first_stage",
            found=str(error),
            remedy="mend the recipe",
        ) from error
    return module


def _fit(
    module: SegmentationModule,
    batches: Batches,
    run: RunFolder,
    record: dict[str, str | int],
    progress: Progress,
    device: str,
) -> None:
    target = choose_device(device)
    if target.type == "cpu":
        keep_freed_memory()
    recipe = module.recipe
    half = choose_precision(recipe.training.precision, target) == torch.bfloat16
    provenance = {key: value for key, value in record.items() if key not in ("version", "recipe")}
    log = EpochLog(run.log, recipe.label_scheme.names)
    attention = keep_attention(module.evaluated, recipe, batches.validation)
    trainer = Trainer(
        accelerator=target.type,
        devices=1,
        precision="bf16-mixed" if half else "32-true",
        max_epochs=recipe.training.epochs,
        accumulate_grad_batches=recipe.training.optimizer.accumulate,
        gradient_clip_val=recipe.training.optimizer.clip_norm,
        check_val_every_n_epoch=recipe.training.validate_every,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=[
            KeepBest(module.evaluated, run.model, recipe, provenance),
            log,
            *([attention] if attention else []),
            RunReport(run.report, recipe, log, attention),
            *stop_early(recipe.training),
            SaveState(run.state),  # after what it saves
            ShowProgress(progress),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=target.type == "cuda",
    )
    trainer.fit(
        module,
        batches,
        ckpt_path=run.state if run.state.is_file() else None,
        weights_only=True,
    )


def _quiet_lightning() -> None:
    """Silence hints that do not concern who runs a recipe (worker counts, TPU notices)."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
