"""The step from a manifest's folds to one trained model for each: a plain loop."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ct_attn import atomic
from ct_attn.errors import UserError
from ct_attn.manifest import file_digest, read_manifest
from ct_attn.recipe import Recipe
from ct_attn.train import train
from ct_attn.training.cache import choose_folder
from ct_attn.training.start import Start

#: In the output folder: what the folds were started with, and which are finished.
RECORD_NAME = "cross_validation.json"


def train_folds(
    recipe: Recipe,
    manifest_path: Path,
    output: Path,
    *,
    progress: Progress,
    start: Start | None = None,
    resume: bool = False,
    device: str = "auto",
    cache: Path | None = None,
) -> tuple[Path, ...]:
    """Train ``recipe`` once for each fold held out, into ``output``/fold_0, fold_1, ...

    Returns the folders of the best models. Folds that are finished are skipped; with
    ``resume`` one that was interrupted goes on. All share one folder of prepared cases.
    Raises :class:`UserError` when ``output`` holds the folds of another recipe, manifest
    or start, an interrupted fold without ``resume``, or as :func:`~ct_attn.train.train`.
    """
    start = start or Start()
    manifest = read_manifest(manifest_path)
    if not manifest.folds:
        raise UserError(manifest_path, expected="folds", found="no training cases", remedy="add cases")
    record = {
        "recipe": recipe.model_dump(mode="json"),
        "manifest": os.path.relpath(manifest_path.resolve(), output.resolve()),
        "manifest_digest": file_digest(manifest_path),
        "folds": list(manifest.folds),
        **start.digests(),
    }
    finished = _claim(output, record)
    cache = cache or choose_folder(manifest_path, otherwise=output / "cache")
    folders = {fold: fold_folder(output, fold) for fold in manifest.folds}
    task = progress.add_task("folds", total=len(folders))
    for fold, folder in folders.items():
        if fold not in finished:
            progress.update(task, description=f"fold {fold}")
            train(
                recipe, manifest_path, folder, progress=progress, fold=fold,
                start=start, resume=resume, device=device, cache=cache,
            )  # fmt: skip
            finished.append(fold)
            atomic.write_text(
                output / RECORD_NAME, json.dumps({**record, "finished": finished}, indent=1) + "\n"
            )
        progress.update(task, advance=1)
    return tuple(folder / "model" for folder in folders.values())


def fold_folder(output: Path, fold: int) -> Path:
    """Where the run of ``fold`` lies."""
    return output / f"fold_{fold}"


def read_record(output: Path) -> dict[str, Any]:
    """What :func:`train_folds` wrote into ``output``; empty where it did not."""
    path = output / RECORD_NAME
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def manifest_of(output: Path) -> Path | None:
    """The manifest that the folds in ``output`` were trained on; None where that is not written there."""
    kept = read_record(output).get("manifest")
    return None if kept is None else (output.resolve() / kept).resolve()


def _claim(output: Path, record: dict[str, Any]) -> list[int]:
    """The folds that are finished in ``output``, which is new or holds folds of the same ``record``."""
    earlier = read_record(output)
    if not earlier:
        # The record is there from the end of the first fold on, whose own run is claimed by train.
        own = (fold_folder(output, record["folds"][0]), output / "cache")
        if output.exists() and any(path not in own for path in output.iterdir()):
            raise UserError(
                output,
                expected="a new or empty output folder, or one of --fold all",
                found="something else in it",
                remedy="choose another -o",
            )
        return []
    keys = (record.keys() | earlier.keys()) - {"finished", "manifest"}
    changed = sorted(key for key in keys if earlier.get(key) != record.get(key))
    if changed:
        raise UserError(
            output,
            expected="the folds of the same training",
            found=f"those of one with another {', '.join(changed)}",
            remedy="give the same recipe, manifest and start, or choose another -o",
        )
    return list(earlier["finished"])
