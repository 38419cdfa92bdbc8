"""The whole road on a synthetic cohort: make it, train on it, predict, evaluate."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from rich.progress import Progress

from ct_attn import __version__, atomic
from ct_attn.baseline import UsualPlace, guess_mask, usual_places
from ct_attn.datasets.phantom.cohort import MANIFEST_NAME, CohortConfig, make_cohort
from ct_attn.datasets.phantom.config import PhantomConfig
from ct_attn.errors import UserError
from ct_attn.evaluate import Evaluation, evaluate
from ct_attn.inference.options import InferenceOptions
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME, recode
from ct_attn.manifest import Manifest, read_manifest
from ct_attn.predict import predict
from ct_attn.prediction.request import Request
from ct_attn.recipe import Recipe, parse_recipe
from ct_attn.scan_io import nifti
from ct_attn.train import train
from ct_attn.volume import Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSize:
    """How many cases are drawn, and from which scans."""

    n_training: int = 20
    n_test: int = 8
    phantom: PhantomConfig = field(
        default_factory=lambda: PhantomConfig(in_plane_spacing_mm=(0.8, 1.0), slice_spacing_mm=(2.5, 5.0))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo made."""

    model: Path
    masks: Path
    evaluation: Evaluation
    baseline: Evaluation


def demo_recipe() -> Recipe:
    """The recipe that travels with the package."""
    name = "demo_recipe.yaml"
    return parse_recipe(files("ct_attn").joinpath(name).read_text(encoding="utf-8"), source=name)


def run_demo(
    output: Path, *, seed: int, progress: Progress, recipe: Recipe | None = None, size: DemoSize | None = None
) -> Demo:
    """Make everything in the folder ``output``; what an interrupted demo finished is kept.

    Raises :class:`UserError` when ``output`` holds something else, or the demo of
    another seed or version.
    """
    recipe, size = recipe or demo_recipe(), size or DemoSize()
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})
    _claim(output, seed)
    manifest = _cohort(output / "cohort", seed, size, progress)
    model = train(recipe, manifest, output / "run", progress=progress, resume=True)
    masks = output / "masks"
    # Which backend is faster is measured, and a demo made again shall give the same masks.
    request = Request(models=(model,), inference=InferenceOptions(backend="torch"))
    predict(request, [manifest.parent / "imagesTs"], masks, progress=progress, overwrite=True)
    _guess(manifest, output / "baseline" / "masks")
    evaluation = evaluate(
        manifest, masks, output / "evaluation", progress=progress, title="Demo: synthetic abdominal CT"
    )
    baseline = evaluate(
        manifest,
        output / "baseline" / "masks",
        output / "baseline",
        progress=progress,
        title="Demo: balls at the usual places",
    )
    return Demo(model=model, masks=masks, evaluation=evaluation, baseline=baseline)


def _claim(output: Path, seed: int) -> None:
    """Make sure that ``output`` is empty or an interrupted demo of this seed and version."""
    mark = output / "demo.json"
    started = {"version": __version__, "seed": seed}
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == started:
        return
    if output.exists() and any(output.iterdir()):
        raise UserError(
            output,
            expected="an empty folder, or a demo of this seed and version",
            found="something else in it",
            remedy="choose another -o or remove it",
        )
    atomic.write_text(mark, json.dumps(started) + "\n")


def _cohort(folder: Path, seed: int, size: DemoSize, progress: Progress) -> Path:
    config = CohortConfig(n_training=size.n_training, n_test=size.n_test, seed=seed, phantom=size.phantom)
    task = progress.add_task("drawing cases", total=size.n_training + size.n_test)
    if (folder / MANIFEST_NAME).is_file():
        progress.update(task, completed=size.n_training + size.n_test)
        return folder / MANIFEST_NAME
    return make_cohort(
        config,
        folder,
        jobs=min(os.cpu_count() or 1, 8),
        on_case=lambda done, total: progress.update(task, completed=done),
    )


def _guess(manifest_path: Path, folder: Path) -> None:
    """Write, for every test case, the mask one would guess without looking at the scan."""
    manifest = read_manifest(manifest_path)
    places = _places(manifest, manifest_path.parent)
    for case in manifest.test:
        label = manifest_path.parent / case.label
        sided = guess_mask(nifti.read_grid(label), places)
        mask = Mask(labels=recode(sided.labels, DISK_SCHEME, PAPER_SCHEME), grid=sided.grid)
        nifti.write_mask(mask, folder / f"{case.case_id}.nii.gz", scheme=PAPER_SCHEME)


def _places(manifest: Manifest, root: Path) -> list[UsualPlace]:
    masks = (nifti.read_mask(root / case.label)[0] for case in manifest.training)
    return usual_places(masks, manifest.label_scheme)
