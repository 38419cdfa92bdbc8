"""Copies of one scan, stored in other ways or mirrored, through networks with a neighbourhood."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from ct_attn.inference.backends.torch_backend import TorchBackend
from ct_attn.inference.options import InferenceOptions, Prediction
from ct_attn.inference.predictor import Predictor
from ct_attn.network.build import build_network
from ct_attn.network.configs import AttentionUNetConfig
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.training_config import AugmentationConfig, TrainingConfig
from ct_attn.volume import Volume
from tests.unit.grids import SOME_CODES, grid_of, voxel_centres_mm
from tests.unit.inference.models import recipe

SPACING_MM = (1.5, 1.7, 2.0)
#: One window, or several that are smaller than the scan below and lie alike from either end.
PATCHES = {"one window": (32, 32, 16), "windows": (16, 16, 8)}


def drawn_network() -> torch.nn.Module:
    """An Attention U-Net whose normalisation has seen data, and which gives either class its share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(AttentionUNetConfig(widths=(2, 3, 4)), in_channels=1, n_classes=2)
        for _ in range(10):
            network(torch.rand(2, 1, 16, 16, 16))
    return network.eval()


def symmetrised(network: torch.nn.Module) -> torch.nn.Module:
    """``network`` with every kernel the mean of its mirrored copies."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 5:
                axes = [[axis for axis, flip in zip((2, 3, 4), flips, strict=True) if flip]
                        for flips in product((False, True), repeat=3)]  # fmt: skip
                weight.copy_(torch.stack([weight.flip(flipped) for flipped in axes]).mean(0))
    return network


def predictor_of(network: torch.nn.Module, patch=(32, 32, 16), **options) -> Predictor:
    small = recipe(
        preprocessing=PreprocessingConfig(spacing_mm=SPACING_MM, hu_window=(-1000, 1000), antialias=False),
        network=AttentionUNetConfig(widths=(2, 3, 4)),
        training=TrainingConfig(patch_size=patch, augmentation=AugmentationConfig(flip_axes=("R", "A", "S"))),
    )
    asked = InferenceOptions(body_mask=False, windows="trained", **options)
    return Predictor([TorchBackend(network, torch.device("cpu"))], small, asked)


def speckle(size=(32, 24, 16)) -> np.ndarray:
    return np.random.default_rng(2).integers(-900, 900, size).astype(np.int16)


def run(predictor: Predictor, hu: np.ndarray) -> np.ndarray:
    grid = grid_of(size=hu.shape, spacing_mm=SPACING_MM)
    found: Prediction = predictor.run(Volume(hu=np.ascontiguousarray(hu), grid=grid), probabilities=True)
    return found.probabilities["spleen"].hu


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_a_mirrored_patient_gets_the_mirrored_mask_of_a_symmetrised_network(axis, patch):
    predictor = predictor_of(symmetrised(drawn_network()), patch)
    plain, mirrored = run(predictor, speckle()), run(predictor, np.flip(speckle(), axis))
    np.testing.assert_allclose(np.flip(mirrored, axis), plain, rtol=0, atol=1e-5)
    assert plain.std() > 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirroring_makes_up_for_a_network_that_is_not_symmetric(axis):
    network = drawn_network()
    both = {}
    for mirroring in (False, True):
        predictor = predictor_of(network, mirroring=mirroring)
        plain, mirrored = run(predictor, speckle()), run(predictor, np.flip(speckle(), axis))
        both[mirroring] = np.abs(np.flip(mirrored, axis) - plain).max()
    assert both[False] > 1e-2
    assert both[True] < 1e-5


@pytest.mark.parametrize("code", [code for code in SOME_CODES if code != "RAS"])
@pytest.mark.parametrize("angles", [(0, 0, 0), (0.1, -0.2, 0.15)], ids=["straight", "oblique"])
def test_a_scan_stored_in_another_order_gets_the_same_mask_in_mm(code, angles):
    """Of any network: it always sees the patient the same way round."""
    predictor = predictor_of(drawn_network(), PATCHES["windows"])
    where = {"size": (30, 26, 18), "spacing_mm": (1.1, 0.9, 2.3), "angles": angles}
    ras, other = grid_of("RAS", **where), grid_of(code, **where)
    voxels = tuple(np.moveaxis(np.rint(ras.to_voxels(voxel_centres_mm(other))).astype(int), -1, 0))
    hu = speckle(where["size"])
    plain = predictor.run(Volume(hu=hu, grid=ras), probabilities=True)
    stored = predictor.run(Volume(hu=np.ascontiguousarray(hu[voxels]), grid=other), probabilities=True)
    expected = plain.probabilities["spleen"].hu
    np.testing.assert_allclose(stored.probabilities["spleen"].hu, expected[voxels], rtol=0, atol=1e-4)
    clear = np.abs(expected - 0.5) > 1e-4
    assert np.array_equal(stored.mask.labels[clear[voxels]], plain.mask.labels[voxels][clear[voxels]])
    assert expected.std() > 1e-3
