"""The step from a manifest and a recipe to a trained model."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import lightning
import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import Progress

from ct_attn import __version__, atomic
from ct_attn.device import choose_device, choose_precision, total_bytes
from ct_attn.errors import UserError
from ct_attn.heap import keep_freed_memory
from ct_attn.manifest import Manifest, choose_fold, file_digest, read_manifest
from ct_attn.network.slicewise import core_of
from ct_attn.network.transfer import require_parts
from ct_attn.recipe import Recipe, write_recipe
from ct_attn.training.attention import keep_attention
from ct_attn.training.cache import CachedCase, choose_folder, fill
from ct_attn.training.callbacks import EpochLog, KeepBest, KeepLast, SaveState, follow_plateau, stop_early
from ct_attn.training.cases import CaseFiles, check_labelled, locate
from ct_attn.training.data import Batches
from ct_attn.training.faults import StopOnNonFinite, is_out_of_memory, out_of_memory
from ct_attn.training.launch import (
    Launch,
    RequireSize,
    follow_parent,
    leave_with_others,
    lost_another,
    require_devices,
    require_norms,
)
from ct_attn.training.module import SegmentationModule
from ct_attn.training.run_folder import RunFolder, claim
from ct_attn.training.show import RunPictures, ShowProgress, board, run_facts
from ct_attn.training.start import Start, take_weights
from ct_attn.training.state import ReadState, StateFile, read_state
from ct_attn.training.worst import KeepWorst

LIGHTNING_PRECISION: dict[torch.dtype, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    torch.float32: "32-true",
    torch.bfloat16: "bf16-mixed",
    torch.float16: "16-mixed",
}


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
    launch: Launch | None = None,
) -> Path:
    """Train ``recipe`` on all folds but ``fold`` and return the folder of the best model.

    The weights are drawn from the recipe's seed, save those that ``start`` names. The
    prepared cases are kept in the folder ``cache``; by default it lies beside the
    manifest, or where that cannot be written, in ``output``.

    Writes into ``output``: ``model/`` (the best validation's, by DSC or loss), ``last/``,
    ``recipe.yaml``, ``run.json``, ``log.csv``, ``progress.png``, ``report.html``, ``tensorboard/`` where that
    is installed, and ``state.ckpt`` with the one before. With ``resume`` the run goes on
    from its newest state, and ends with what it would have ended with undisturbed.

    ``launch``: the processes that train together. Where nobody started the others,
    Lightning does, by running this process's command line again in each: a program
    that trains with several processes does so once.

    Raises :class:`UserError` when the manifest, its files or the output folder cannot be
    used, the loss is no number, or a device or a disk has no room.
    """
    launch = launch or Launch()
    follow_parent(launch)
    if not launch.is_first:
        progress = Progress(disable=True, console=Console(quiet=True))
    target = choose_device(device, touch=launch.n_processes == 1)
    require_devices(launch, target, device)
    run = RunFolder(path=output)
    manifest = read_manifest(manifest_path)
    start = start or Start()
    precision = LIGHTNING_PRECISION[choose_precision(recipe.training.precision, target)]
    record: dict[str, str | int] = {
        **_record(recipe, manifest_path, fold, launch),
        "device": target.type,
        "precision": precision,
        **start.digests(),
    }
    if launch.is_first:
        claim(run, record, resume=resume)
    module = _module(recipe, start, progress)
    require_norms(module.network, launch, target, synchronised=recipe.training.sync_batch_norm)
    sides = choose_fold(manifest, fold, path=manifest_path)
    check_labelled(manifest.training, recipe.label_scheme, manifest_path)
    files = [locate(cases, manifest_path) for cases in sides]
    state = None
    if resume:
        state = read_state(run.state, run.previous_state, _say_on(progress))
    folder = cache or choose_folder(manifest_path, otherwise=run.cache)
    training, validation = _prepare(files, recipe, manifest, folder, progress, launch)
    if launch.is_first:
        atomic.remove_partials(run.path)
        atomic.remove_partials(run.model)
        atomic.remove_partials(run.last)
        if state is None:
            write_recipe(recipe, run.recipe)
            atomic.write_text(run.record, json.dumps(record, indent=1) + "\n")
    _quiet_lightning()
    if target.type == "cpu":
        keep_freed_memory()
    batches = Batches(recipe, training, validation, rank=launch.rank, n_processes=launch.n_processes)
    callbacks = _callbacks(module, batches, run, record, progress, launch)
    trainer = Trainer(
        accelerator=target.type,
        **launch.trainer_options(target, synchronised=recipe.training.sync_batch_norm),
        use_distributed_sampler=False,  # each process knows its share
        plugins=[StateFile(run.previous_state, state)],
        precision=precision,
        max_epochs=recipe.training.epochs,
        accumulate_grad_batches=recipe.training.optimizer.accumulate,
        gradient_clip_val=recipe.training.optimizer.clip_norm,
        check_val_every_n_epoch=recipe.training.validate_every,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    _fit(trainer, module, batches, run, state, launch)
    return run.model


def _record(recipe: Recipe, manifest_path: Path, fold: int, launch: Launch) -> dict[str, str | int]:
    return {
        "version": __version__,
        "torch": str(torch.__version__),  # a plain string: the state is read as such only
        "manifest_digest": file_digest(manifest_path),
        "fold": fold,
        "processes": launch.n_processes,
        "recipe": recipe.model_dump_json(),
    }


def _say_on(progress: Progress) -> Callable[[str], object]:
    return lambda line: progress.console.print(line, markup=False, soft_wrap=True)


def _prepare(
    sides: list[list[CaseFiles]],
    recipe: Recipe,
    manifest: Manifest,
    folder: Path,
    progress: Progress,
    launch: Launch,
) -> list[list[CachedCase]]:
    """The cases of both sides of a fold, in the cache ``folder``."""
    _say_on(progress)(f"prepared cases are kept in {folder}")
    task = progress.add_task("preparing cases", total=sum(map(len, sides)))
    return [
        fill(
            cases,
            folder,
            source=manifest.label_scheme,
            target=recipe.label_scheme,
            preprocessing=recipe.preprocessing,
            share=(launch.rank, launch.n_processes),
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
        require_parts(core_of(module.network), frozen)
    except ValueError as error:
        raise UserError(
            recipe.name,
            expected="parts of the network in training.freeze and training.first_stage",
            found=str(error),
            remedy="mend the recipe",
        ) from error
    return module


def _callbacks(
    module: SegmentationModule,
    batches: Batches,
    run: RunFolder,
    record: dict[str, str | int],
    progress: Progress,
    launch: Launch,
) -> list[Callback]:
    """What goes on beside the training, in the order in which it happens after an epoch."""
    recipe = module.recipe
    provenance = {key: value for key, value in record.items() if key not in ("version", "recipe")}
    best = KeepBest(module.evaluated, run.model, recipe, provenance)
    last = KeepLast(module.evaluated, run.last, recipe, provenance)
    log = EpochLog(run.log, recipe.label_scheme.names)
    attention = keep_attention(module.evaluated, recipe, batches.validation)
    worst = KeepWorst(recipe, batches.validation)
    n_parameters = sum(parameter.numel() for parameter in module.network.parameters())
    pictures = RunPictures(
        picture=run.picture,
        report=run.report,
        recipe=recipe,
        facts=run_facts(recipe, n_parameters=n_parameters, n_processes=launch.n_processes),
        log=log,
        best=best,
        worst=worst,
        attention=attention,
    )
    return [
        RequireSize(launch),
        StopOnNonFinite(run.bad_batch, accumulate=recipe.training.optimizer.accumulate),
        best,
        log,
        worst,
        *([attention] if attention else []),
        *follow_plateau(recipe.training),
        *stop_early(recipe.training),
        last,  # after what may stop the training
        SaveState(run.state, [best, last, log, pictures, *board(run.board, log)]),  # after what it saves
        ShowProgress(progress, log),
    ]


def _fit(
    trainer: Trainer,
    module: SegmentationModule,
    batches: Batches,
    run: RunFolder,
    state: ReadState | None,
    launch: Launch,
) -> None:
    try:
        trainer.fit(module, batches, ckpt_path=None if state is None else run.state, weights_only=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            device = trainer.strategy.root_device
            raise out_of_memory(
                module.recipe,
                device=device,
                memory_bytes=total_bytes(device),
                dtype=choose_precision(module.recipe.training.precision, device),
                validated=module.scan_shape,
            ) from error
        if launch.n_processes > 1 and lost_another(error):
            leave_with_others(launch, error)
        raise


def _quiet_lightning() -> None:
    """Silence hints that do not concern who runs a recipe (worker counts, ranks, layouts of gradients)."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
