"""How far windows larger than the training's patch change a mask, and where: what docs/inference.md says."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage

from ct_attn.inference.backends.torch_backend import TorchBackend
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.labels import recode
from ct_attn.losses import LossConfig, SegmentationLoss
from ct_attn.manifest import read_manifest
from ct_attn.metrics.overlap import count_overlap
from ct_attn.network.build import build_network
from ct_attn.network.configs import AttentionUNetConfig, UNetConfig
from ct_attn.preprocessing import Prepared, prepare, prepare_mask
from ct_attn.recipe import InferenceConfig, Recipe
from ct_attn.scan_io import nifti
from ct_attn.training_config import TrainingConfig
from ct_attn.volume import Mask
from tests.cohorts import tiny_recipe
from tests.unit.grids import grid_of
from tests.unit.inference.models import Fake, recipe

CPU = torch.device("cpu")
WINDOWS = ("chosen", "trained")

#: A voxel's logits in a U-Net of two levels depend on the image up to this far away, in voxels:
#: two convolutions 2, pooling 1, two on half the grid 4, upsampling 2, two more 2.
REACH = 11


def predictors(backend, of: Recipe) -> list[Predictor]:
    return [Predictor([backend], of, InferenceOptions(windows=windows)) for windows in WINDOWS]


def test_logits_differ_only_where_windows_of_the_trainings_size_meet():
    """Beyond a window's border a convolution sees zeros: that alone is what larger windows change."""
    halves = recipe(
        network=UNetConfig(widths=(2, 3)),
        training=TrainingConfig(patch_size=(48, 16, 16)),
        inference=InferenceConfig(precision="fp32", overlap=0),
    )
    torch.manual_seed(0)
    network = build_network(halves.network, in_channels=1, n_classes=2).eval()
    grid = grid_of(size=(96, 16, 16))
    image = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    prepared = Prepared(image=image, grid=grid, source_grid=grid)
    chosen, trained = (
        predictor.logits(prepared) for predictor in predictors(TorchBackend(network, CPU), halves)
    )
    difference = np.abs(chosen - trained).max(axis=(0, 2, 3))
    met = np.abs(np.arange(96) - 47.5) < REACH
    assert difference[47:49].min() > 1e-3
    assert difference[~met].max() < 1e-5


def test_what_needs_no_neighbourhood_is_the_same_in_any_windows():
    """Placing and blending change nothing: what differs comes from the network."""
    small = recipe(training=TrainingConfig(patch_size=(16, 16, 8)))
    grid = grid_of(size=(50, 40, 30))
    image = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    prepared = Prepared(image=image, grid=grid, source_grid=grid)
    backend = Fake(lambda window: np.concatenate([0.5 - window, window - 0.5], axis=1))
    chosen, trained = (predictor.logits(prepared) for predictor in predictors(backend, small))
    np.testing.assert_allclose(chosen, trained, rtol=0, atol=1e-5)
    assert len({shape[2:] for shape in backend.shapes}) == 2


def test_windows_as_trained_have_the_trainings_size_and_the_recipes_overlap():
    small = recipe(training=TrainingConfig(patch_size=(16, 16, 8)), inference=InferenceConfig(overlap=0.5))
    grid = grid_of(size=(32, 16, 8))
    prepared = Prepared(image=np.zeros(grid.shape, dtype=np.float32), grid=grid, source_grid=grid)
    backend = Fake(lambda window: np.concatenate([window, window], axis=1))
    predictors(backend, small)[1].logits(prepared)
    assert backend.shapes == [(1, 1, 16, 16, 8)] * 3


#: Windows of the training's patch of (32, 32, 24) voxels, about as long as the network reaches, against
#: windows that hold the body.
PATCH, STEPS = (32, 32, 24), 200


@pytest.fixture(scope="module")
def cases(tiny_manifest):
    """Two scans with their truth."""
    found = []
    for case in read_manifest(tiny_manifest).training[:2]:
        mask, scheme = nifti.read_mask(tiny_manifest.parent / case.label)
        labels = recode(mask.labels, scheme, TRAINED.label_scheme)
        found.append(
            (nifti.read_volume(tiny_manifest.parent / case.image), Mask(labels=labels, grid=mask.grid))
        )
    return found


TRAINED = tiny_recipe().model_copy(
    update={
        "targets": {"spleen": ("spleen",), "kidney": ("left_kidney", "right_kidney")},
        "training": TrainingConfig(patch_size=PATCH),
        "network": AttentionUNetConfig(widths=(4, 8, 16)),
    }
)


@pytest.fixture(scope="module")
def trained(cases) -> list[torch.nn.Module]:
    """Three Attention U-Nets that find spleen and kidneys in these scans.

    What is far from a border is a blob or two of a network, and which ones it has depends on the
    processor's rounding, so that one network alone is no measure.
    """
    return [train(cases, seed) for seed in range(3)]


def train(cases, seed: int) -> torch.nn.Module:
    prepared = [
        (prepare(volume, TRAINED.preprocessing).image, prepare_mask(mask, TRAINED.preprocessing).labels)
        for volume, mask in cases
    ]
    random = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(TRAINED.network, in_channels=1, n_classes=3)
    loss = SegmentationLoss(LossConfig(cross_entropy_weight=1.0))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        image, labels = prepared[step % 2]
        voxels = np.argwhere(labels == step // 2 % 3)
        middle = voxels[random.integers(len(voxels))] + random.integers(-6, 7, 3)
        begin = [
            int(np.clip(at - side // 2, 0, length - side))
            for at, side, length in zip(middle, PATCH, labels.shape, strict=True)
        ]
        window = tuple(slice(first, first + side) for first, side in zip(begin, PATCH, strict=True))
        patch = torch.from_numpy(np.ascontiguousarray(image[window]))[None, None]
        error = loss(network(patch), torch.from_numpy(labels[window].astype(np.int64))[None])
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def border_distance_mm(labels: np.ndarray, spacing_mm) -> np.ndarray:
    """From every voxel to the nearest voxel that touches one of another class."""
    border = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    return ndimage.distance_transform_edt(~border, sampling=spacing_mm)


def dsc(first: Mask, second: Mask, code: int) -> float:
    return count_overlap(first.labels == code, second.labels == code).dsc


@pytest.mark.slow
def test_larger_windows_change_masks_as_little_as_the_documentation_says(cases, trained):
    agreement, changed, distances_mm, gained = [], [], [], []
    for network, (volume, truth) in product(trained, cases):
        both = predictors(TorchBackend(network, CPU), TRAINED)
        chosen, windowed = (predictor.predict(volume) for predictor in both)
        assert both[0].computed_voxels != both[1].computed_voxels
        differs = chosen.labels != windowed.labels
        distances_mm.append(border_distance_mm(windowed.labels, volume.grid.spacing_mm)[differs])
        changed.append(differs.mean())
        for code in (1, 2):
            agreement.append(dsc(chosen, windowed, code))
            gained.append(dsc(chosen, truth, code) - dsc(windowed, truth, code))
            assert dsc(windowed, truth, code) > 0.5  # it has learnt something that could change
    far = np.mean(np.concatenate(distances_mm) > TRAINED.preprocessing.spacing_mm[0])
    print(
        f"Dice of larger windows with those of the training: {min(agreement):.3f} to {max(agreement):.3f}; "
        f"voxels changed: {max(changed):.2%} at most, {far:.1%} of all of them beyond 8 mm of a border; "
        f"Dice with the truth: {np.mean(gained):+.3f} on average"
    )
    assert min(agreement) > 0.8
    assert max(changed) < 0.005
    assert far < 0.15
    assert abs(np.mean(gained)) < 0.05
