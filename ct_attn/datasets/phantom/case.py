"""One case of the phantom: a scan, its truth, and the facts it was drawn with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ct_attn.datasets.phantom.anatomy import draw_anatomy
from ct_attn.datasets.phantom.config import PhantomConfig
from ct_attn.datasets.phantom.patient import child_seed, stream
from ct_attn.datasets.phantom.scanner import ScanSetup, draw_setup, scan
from ct_attn.labels import DISK_SCHEME
from ct_attn.volume import Mask, Spacing3, Volume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaseFacts:
    """What is known of a case without measuring the image.

    ``spacing_mm`` and ``orientation`` are those of the stored axes; ``volumes_ml``
    counts the mask's voxels; ``tissue_hu`` are the CT numbers drawn for the tissues.
    """

    phase: str
    spacing_mm: Spacing3
    orientation: str
    oblique: bool
    padded: bool
    noise_hu: float
    blur_mm: float
    body_scale: float
    volumes_ml: Mapping[str, float]
    tissue_hu: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhantomCase:
    """``volume`` int16 HU and ``mask`` in the codes of ``DISK_SCHEME``, on one grid."""

    volume: Volume
    mask: Mask
    facts: CaseFacts


def draw_case(seed: np.random.SeedSequence | int, config: PhantomConfig | None = None) -> PhantomCase:
    """The random case of ``seed``: the same bytes whenever and wherever it is drawn."""
    config = config or PhantomConfig()
    root = _root(seed)
    scale = float(stream(root, "scale").uniform(*config.body_scale))
    anatomy = draw_anatomy(root, scale=scale)
    setup = draw_setup(stream(root, "setup"), config, anatomy)
    volume, mask = scan(anatomy, setup, child_seed(root, "noise"))
    return PhantomCase(
        volume=volume,
        mask=mask,
        facts=_facts(mask, setup, phase=anatomy.numbers.phase, hu=anatomy.numbers.hu, scale=scale),
    )


def _root(seed: np.random.SeedSequence | int) -> np.random.SeedSequence:
    """A fresh sequence: spawning from it must not change what the caller's gives next."""
    if isinstance(seed, np.random.SeedSequence):
        return np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)
    return np.random.SeedSequence(seed)


def _facts(mask: Mask, setup: ScanSetup, *, phase: str, hu: Mapping[str, float], scale: float) -> CaseFacts:
    counts = np.bincount(mask.labels.ravel(), minlength=256)
    voxel_ml = mask.grid.voxel_volume_mm3 / 1000
    return CaseFacts(
        phase=phase,
        spacing_mm=mask.grid.spacing_mm,
        orientation=setup.orientation,
        oblique=setup.is_oblique,
        padded=setup.padded,
        noise_hu=setup.noise_hu,
        blur_mm=setup.blur_mm,
        body_scale=scale,
        volumes_ml={name: float(counts[code] * voxel_ml) for name, code in DISK_SCHEME.codes.items()},
        tissue_hu=dict(hu),
    )
