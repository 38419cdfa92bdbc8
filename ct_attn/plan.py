"""The step from a manifest and a machine to a recipe: what to train with, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from ct_attn.device import choose_device, choose_precision
from ct_attn.errors import UserError
from ct_attn.fingerprint import Fingerprint, examine_case, summarise
from ct_attn.manifest import Manifest, read_manifest
from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.memory import activation_bytes_per_voxel, training_bytes
from ct_attn.preprocessing import PreprocessingConfig, canonical_axes
from ct_attn.recipe import Recipe
from ct_attn.scan_io import nifti
from ct_attn.scan_io.scan import read_scan
from ct_attn.training.cases import locate
from ct_attn.training_config import OptimizerConfig, TrainingConfig
from ct_attn.volume import Shape3, Spacing3, require_same_grid

#: The paper's working grid; a scan that is coarser along an axis keeps its own spacing there.
FINEST_MM = 2.0
#: Of the memory that is free, what a plan lays claim to.
SHARE_OF_MEMORY = 0.8
#: A voxel of a training scan is drawn about so often over the whole training.
VISITS_PER_VOXEL = 300
BATCHES_PER_EPOCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A recipe, and a sentence on each thing it decides."""

    recipe: Recipe
    reasons: tuple[str, ...]


def plan(
    manifest_path: Path, *, progress: Progress, memory_bytes: float | None = None, device: str = "auto"
) -> Plan:
    """A recipe for the training cases of ``manifest_path`` on ``device``.

    ``memory_bytes``: what a training may use; by default most of what is free. Raises
    :class:`UserError` when the manifest or its files cannot be used, or no patch fits.
    """
    target = choose_device(device)
    memory = memory_bytes or SHARE_OF_MEMORY * free_bytes(target)
    manifest = read_manifest(manifest_path)
    fingerprint = take_fingerprint(manifest, manifest_path, progress)
    targets = targets_labelled(manifest)
    return propose(fingerprint, targets, memory_bytes=memory, device=target, name=manifest_path.parent.name)


def take_fingerprint(manifest: Manifest, manifest_path: Path, progress: Progress) -> Fingerprint:
    """The fingerprint of all training cases of ``manifest``, which lies in ``manifest_path``."""
    files = locate(manifest.training, manifest_path)
    rng = np.random.default_rng(0)
    facts = []
    for case in progress.track(files, description="examining cases"):
        volume, (mask, _) = read_scan(case.image), nifti.read_mask(case.label)
        require_same_grid(mask.grid, volume.grid, subject=str(case.label), than=str(case.image))
        facts.append(examine_case(volume, mask, canonical_axes(volume.grid)[0], rng))
    if not facts:
        raise UserError(
            manifest_path, expected="training cases", found="none", remedy="add cases to the manifest"
        )
    return summarise(facts)


def targets_labelled(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """The paper's targets, less those of which no training case labels any part."""
    labelled = {organ for case in manifest.training for organ in case.labelled_organs}
    return {name: organs for name, organs in Recipe(name="all").targets.items() if labelled & set(organs)}


def propose(
    fingerprint: Fingerprint,
    targets: dict[str, tuple[str, ...]],
    *,
    memory_bytes: float,
    device: torch.device,
    name: str,
) -> Plan:
    """The recipe for data of ``fingerprint`` in ``memory_bytes`` on ``device``, with its reasons."""
    network = AttentionUNetConfig()
    dtype = choose_precision("auto", device)
    spacing = choose_spacing(fingerprint.spacing_mm)
    built = build_network(network, in_channels=1, n_classes=len(targets) + 1)
    per_voxel = activation_bytes_per_voxel(built, dtype=dtype)

    def fits(patch: Shape3, batch: int) -> bool:
        need = training_bytes(built, bytes_per_voxel=per_voxel, n_voxels=batch * prod(patch))
        return need <= memory_bytes

    whole = tuple(round(extent / step) for extent, step in zip(fingerprint.extent_mm, spacing, strict=True))
    patch = choose_patch(whole, network.size_multiple, lambda size: fits(size, 2))
    if patch is None:
        raise UserError(
            "ct-attn plan",
            expected="memory for a batch of two patches",
            found=f"{memory_bytes / 2**30:.1f} GiB",
            remedy="give more with --memory, or train a narrower network",
        )
    batch = max(size for size in (2, 4, 8) if size == 2 or (_covers(patch, whole) and fits(patch, size)))
    epochs = choose_epochs(fingerprint.n_cases, prod(whole), batch * prod(patch))
    recipe = Recipe(
        name=f"plan for {name}",
        targets=targets,
        preprocessing=PreprocessingConfig(spacing_mm=spacing, hu_window=fingerprint.hu_window),
        network=network,
        training=TrainingConfig(
            patch_size=patch,
            batch_size=batch,
            epochs=epochs,
            batches_per_epoch=BATCHES_PER_EPOCH,
            validate_every=10,
            optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine"),
        ),
    )
    need = training_bytes(built, bytes_per_voxel=per_voxel, n_voxels=batch * prod(patch))
    return Plan(
        recipe=recipe,
        reasons=(
            f"spacing {_times(spacing)} mm: the paper's {FINEST_MM:g} mm, or the scans' own median "
            f"({_times(fingerprint.spacing_mm)} mm) where that is coarser",
            f"HU window {fingerprint.hu_window[0]:g} to {fingerprint.hu_window[1]:g}: 0.5th to 99.5th "
            f"percentile inside the organs of {fingerprint.n_cases} cases",
            f"patch {_times(patch)} of the median scan's {_times(whole)} voxels (organs span "
            f"{_times([round(side) for side in fingerprint.organs_mm])} mm): the largest, in the scan's "
            f"proportions, of which two fit",
            f"batch {batch}: about {need / 2**30:.1f} of {memory_bytes / 2**30:.1f} GiB "
            f"({per_voxel:.0f} bytes per voxel in {str(dtype).removeprefix('torch.')})",
            f"{epochs} epochs of {BATCHES_PER_EPOCH} steps: each voxel of the training scans is drawn "
            f"about {VISITS_PER_VOXEL} times",
        ),
    )


def choose_spacing(median_mm: Spacing3) -> Spacing3:
    """The paper's grid, but no finer along an axis than the scans are."""
    first, second, third = (max(FINEST_MM, round(step, 2)) for step in median_mm)
    return first, second, third


def choose_patch(
    whole: Sequence[int], multiple: Sequence[int], fits: Callable[[Shape3], bool]
) -> Shape3 | None:
    """The largest patch that ``fits``, in the proportions of the ``whole`` scan and not beyond it.

    Its sides are multiples of ``multiple``. It grows from the least, always along the
    axis of which it covers the smallest share, and leaves an axis as it is when one
    step more would not fit. None where not even the least patch fits.
    """
    limit = [-(-size // step) * step for size, step in zip(whole, multiple, strict=True)]
    patch = _shape(multiple)
    if not fits(patch):
        return None
    growing = {0, 1, 2}
    while growing:
        axis = min(growing, key=lambda axis: patch[axis] / limit[axis])
        larger = _shape([side + multiple[axis] * (place == axis) for place, side in enumerate(patch)])
        if larger[axis] <= limit[axis] and fits(larger):
            patch = larger
        else:
            growing.discard(axis)
    return patch


def choose_epochs(n_cases: int, voxels_per_case: int, voxels_per_batch: int) -> int:
    """Epochs after which every voxel was drawn about :data:`VISITS_PER_VOXEL` times; 100 to 1000, in tens."""
    steps = VISITS_PER_VOXEL * n_cases * voxels_per_case / voxels_per_batch
    return int(min(1000, max(100, 10 * round(steps / BATCHES_PER_EPOCH / 10))))


def free_bytes(device: torch.device) -> float:
    """Memory that ``device`` has free now."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _shape(sides: Sequence[int]) -> Shape3:
    first, second, third = sides
    return first, second, third


def _covers(patch: Sequence[int], whole: Sequence[int]) -> bool:
    return all(side >= size for side, size in zip(patch, whole, strict=True))


def _times(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:g}" for side in sides)
