"""What a reproduction will do: cohorts, recipes, trainings, and which of them are done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from ct_attn.device import choose_device, choose_precision
from ct_attn.errors import UserError
from ct_attn.manifest import Manifest, choose_fold, file_digest, read_manifest
from ct_attn.network.build import build_network
from ct_attn.network.memory import activation_bytes_per_voxel, training_bytes
from ct_attn.plan import targets_labelled
from ct_attn.recipe import Recipe, read_recipe
from ct_attn.reproduction.cohorts import describe, divide, moved, require_apart
from ct_attn.reproduction.experiments import Experiment, choose, trainings_for

NO_SOURCE = "needs --source: CT-150 is not public, and no cohort was named in its place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A manifest divided for one split of the paper: where it is to lie, and what it labels."""

    manifest: Manifest
    path: Path
    data: str

    @property
    def fold(self) -> int:
        """The fold that chooses the best epoch."""
        return self.manifest.folds[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training that is needed: ``n_cases`` on each side, and whether it is done."""

    experiment: Experiment
    recipe: Recipe
    cohort: Cohort
    done: bool

    @property
    def n_cases(self) -> tuple[int, int, int]:
        """To train on, to choose the epoch by, and to test on."""
        training, validation = choose_fold(self.cohort.manifest, self.cohort.fold, path=self.cohort.path)
        return len(training), len(validation), len(self.cohort.manifest.test)

    @property
    def steps(self) -> int:
        return self.recipe.training.epochs * self.recipe.training.batches_per_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a reproduction will do: experiments to score, trainings they need, what can't be run."""

    experiments: tuple[Experiment, ...]
    jobs: tuple[Job, ...]
    cohorts: Mapping[str, Cohort]
    target: str

    def cohort_of(self, experiment: Experiment) -> Cohort:
        return self.cohorts[experiment.train_test]

    def can_run(self, experiment: Experiment) -> bool:
        return not experiment.needs_source or "120/30" in self.cohorts


def plan_reproduction(
    target: Path,
    output: Path,
    *,
    recipes: Path,
    source: Path | None = None,
    only: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Plan:
    """Check all that a reproduction needs and list what it will do; nothing is written.

    Raises :class:`UserError` as :func:`ct_attn.reproduce.reproduce` does.
    """
    experiments = choose(only)
    cohorts = _cohorts(target, source, output)
    plan = Plan(experiments=experiments, jobs=(), cohorts=cohorts, target=cohorts["61/21"].data)
    jobs = []
    for experiment in trainings_for([one for one in experiments if plan.can_run(one)]):
        cohort = cohorts[experiment.train_test]
        recipe = _recipe(recipes / f"{experiment.name}.yaml", overrides, cohort)
        jobs.append(Job(experiment=experiment, recipe=recipe, cohort=cohort, done=False))
    return replace(plan, jobs=tuple(replace(job, done=is_done(output, job)) for job in jobs))


def memory_gib(job: Job, device: str = "auto") -> float:
    """What a training step of ``job`` needs, as ``ct-attn plan`` counts it."""
    network = build_network(job.recipe.network, in_channels=1, n_classes=job.recipe.n_classes)
    dtype = choose_precision(job.recipe.training.precision, choose_device(device))
    per_voxel = activation_bytes_per_voxel(network, dtype=dtype)
    n_voxels = job.recipe.training.batch_size * prod(job.recipe.training.patch_size)
    return training_bytes(network, bytes_per_voxel=per_voxel, n_voxels=n_voxels) / 2**30


def _cohorts(target: Path, source: Path | None, output: Path) -> dict[str, Cohort]:
    """By split of the paper. Raises :class:`UserError` for manifests that cannot serve."""
    own = read_manifest(target)
    divided = own if own.test and own.training else divide(own, target, "61/21")
    chosen = {"61/21": (divided, "target", target)}
    if source is not None:
        theirs = read_manifest(source)
        require_apart(theirs, source, own, target)
        for split in ("120/30", "30/120"):
            chosen[split] = (divide(theirs, source, split), f"source_{split.replace('/', '_')}", source)
    for manifest, _, path in chosen.values():
        if "pancreas" not in targets_labelled(manifest):
            raise UserError(
                path, expected="training cases that label the pancreas", found="none",
                remedy="give another manifest",
            )  # fmt: skip
    folder = output / "data"
    return {
        split: Cohort(
            manifest=moved(manifest, path, folder), path=folder / f"{name}.json", data=describe(manifest)
        )
        for split, (manifest, name, path) in chosen.items()
    }


def _recipe(path: Path, overrides: Sequence[str], cohort: Cohort) -> Recipe:
    """The recipe in ``path``, less the targets that no case of ``cohort`` labels."""
    recipe = read_recipe(path, overrides)
    labelled = targets_labelled(cohort.manifest)
    organs = {organ for members in labelled.values() for organ in members}
    targets = {name: members for name, members in recipe.targets.items() if organs & set(members)}
    return recipe.model_copy(update={"targets": targets})


def run_folder(output: Path, experiment: Experiment) -> Path:
    return output / "runs" / experiment.name


def is_done(output: Path, job: Job) -> bool:
    """Whether the record says that this very training was finished."""
    record = run_folder(output, job.experiment).with_suffix(".json")
    if not record.is_file() or not job.cohort.path.is_file():
        return False
    return bool(json.loads(record.read_text(encoding="utf-8")) == record_of(job))


def record_of(job: Job) -> dict[str, Any]:
    return {
        "recipe": job.recipe.model_dump(mode="json"),
        "manifest_digest": file_digest(job.cohort.path),
        "fold": job.cohort.fold,
    }
