"""A synthetic cohort on disk: scans, labels and their manifest."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ct_attn import __version__
from ct_attn.datasets.phantom.case import draw_case
from ct_attn.datasets.phantom.config import PhantomConfig
from ct_attn.datasets.phantom.degradation import UNCHANGED, Degradation, degrade
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME
from ct_attn.manifest import Case, Manifest, file_digest, write_manifest
from ct_attn.scan_io import nifti

MANIFEST_NAME = "manifest.json"

#: Keeps the seeds of training and held-out cases apart, whatever their numbers.
_TRAINING_STREAM, _TEST_STREAM = 0, 1
#: And those of what is done to a scan from those of the scan.
_DEGRADATION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortConfig:
    """``n_training`` cases in ``n_folds`` folds and ``n_test`` held-out ones, all from ``seed``.

    The same seed with another ``degradation`` gives the same patients, scanned worse.
    Raises ``ValueError`` when there are fewer training cases than folds, fewer than
    two folds, or a negative number of test cases.
    """

    n_training: int
    n_test: int = 0
    n_folds: int = 4
    seed: int = 0
    phantom: PhantomConfig = field(default_factory=PhantomConfig)
    degradation: Degradation = UNCHANGED

    def __post_init__(self) -> None:
        if not 2 <= self.n_folds <= self.n_training:
            raise ValueError(
                f"{self.n_training} cases cannot be put into {self.n_folds} folds of at least one"
            )
        if self.n_test < 0 or self.seed < 0:
            raise ValueError("the number of test cases and the seed are at least 0")


_DESCRIPTION = "Synthetic abdominal CT; the truth is exact. No patient was scanned."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """One case to be drawn, and where it goes."""

    stream: int
    index: int
    case: Case


def make_cohort(
    config: CohortConfig,
    output: Path,
    *,
    jobs: int = 1,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the cohort into the folder ``output`` and return its manifest's path.

    The layout is the Medical Segmentation Decathlon's. The manifest is written last:
    without it the cohort is not done and is drawn again. ``jobs`` processes share the
    work and change no byte. ``on_case`` hears of cases done and in all. Raises
    :class:`UserError` when ``output`` already holds a cohort.
    """
    manifest_path = output / MANIFEST_NAME
    if manifest_path.exists():
        raise UserError(
            output,
            expected="a folder without a cohort",
            found=MANIFEST_NAME,
            remedy="choose another -o or remove it",
        )
    output.mkdir(parents=True, exist_ok=True)  # fails now rather than after the first case
    draws = [
        *_draws(config, _TRAINING_STREAM, config.n_training),
        *_draws(config, _TEST_STREAM, config.n_test),
    ]
    cases: dict[str, Case] = {}
    # Spawned, not forked: a forked child of a process that has used torch can hang.
    with ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_write_case, draw, config, output) for draw in draws]
        for done, future in enumerate(as_completed(futures), start=1):
            case = future.result()
            cases[case.case_id] = case
            on_case(done, len(draws))
    ordered = [cases[draw.case.case_id] for draw in draws]
    write_manifest(_manifest(config, ordered), manifest_path)
    return manifest_path


def _draws(config: CohortConfig, stream: int, count: int) -> list[_Draw]:
    training = stream == _TRAINING_STREAM
    folder, letter = ("Tr", "") if training else ("Ts", "t")
    draws = []
    for index in range(count):
        case_id = f"phantom_{config.seed}_{letter}{index:03d}"
        case = Case(
            case_id=case_id,
            patient_id=case_id,
            image=f"images{folder}/{case_id}.nii.gz",
            label=f"labels{folder}/{case_id}.nii.gz",
            fold=index % config.n_folds if training else None,
        )
        draws.append(_Draw(stream=stream, index=index, case=case))
    return draws


def _write_case(draw: _Draw, config: CohortConfig, output: Path) -> Case:
    seed = np.random.SeedSequence((config.seed, draw.stream, draw.index))
    phantom = draw_case(seed, config.phantom)
    image, label = output / draw.case.image, output / draw.case.label
    worse = np.random.SeedSequence((config.seed, draw.stream, draw.index, _DEGRADATION))
    volume, mask = degrade(
        phantom.volume, phantom.mask, config.degradation, worse, noise_hu=phantom.facts.noise_hu
    )
    nifti.write_volume(volume, image)
    nifti.write_mask(mask, label, scheme=DISK_SCHEME)
    digests = {"image_digest": file_digest(image), "label_digest": file_digest(label)}
    return draw.case.model_copy(update=digests)


def _manifest(config: CohortConfig, cases: list[Case]) -> Manifest:
    return Manifest(
        name=f"phantom, seed {config.seed}",
        description=_DESCRIPTION
        if config.degradation == UNCHANGED
        else f"{_DESCRIPTION} {config.degradation}",
        source=f"ct_attn {__version__}: ct-attn phantom",
        licence="CC0-1.0",
        labels={"0": "background"} | {str(code): name for name, code in DISK_SCHEME.codes.items()},
        training=tuple(case for case in cases if case.fold is not None),
        test=tuple(case for case in cases if case.fold is None),
    )
