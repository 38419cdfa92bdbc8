"""Networks of slices through the predictor: what it gives is the network on stacks written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ct_attn.checkpoint import load_checkpoint
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.inference.restore import restore_values
from ct_attn.loss_config import LossConfig
from ct_attn.network.configs import AttentionUNetConfig, SlicesConfig
from ct_attn.network.slicewise import core_of
from ct_attn.preprocessing import PreprocessingConfig, prepare
from ct_attn.training_config import AugmentationConfig, TrainingConfig
from ct_attn.volume import Volume
from tests.unit.grids import grid_of
from tests.unit.inference.models import SIDED, saved

ACROSS = {"axial": 2, "coronal": 1, "sagittal": 0}
#: Larger than the scan in plane, so that a slice is one window; a multiple of the network's poolings.
SIDE = 32
EXACT = {"device": "cpu", "backend": "torch", "body_mask": False}


def scan(code="LPS") -> Volume:
    grid = grid_of(code, size=(27, 22, 19), spacing_mm=(1.4, 1.6, 2.2), centre_mm=(10, -20, 300))
    hu = np.random.default_rng(5).integers(-60, 160, grid.shape).astype(np.int16)
    return Volume(hu=hu, grid=grid)


def model(folder, plane="axial", neighbours=3, activation="softmax", at_a_time=4, seed=0):
    patch, spacing_mm = [SIDE] * 3, [1.5, 1.5, 2.0]
    patch[ACROSS[plane]], spacing_mm[ACROSS[plane]] = 1, None
    return saved(
        folder,
        seed,
        targets=SIDED,
        network=AttentionUNetConfig(dims=2, widths=(4, 6, 8)),
        slices=SlicesConfig(plane=plane, neighbours=neighbours, at_a_time=at_a_time),
        preprocessing=PreprocessingConfig(spacing_mm=tuple(spacing_mm), hu_window=(0, 100)),
        loss=LossConfig(activation=activation),
        training=TrainingConfig(
            patch_size=tuple(patch), augmentation=AugmentationConfig(flip_axes=("R", "A"))
        ),
    )


def written_out(folder, volume, flips=((),)):
    """Logits of every class on the scan's grid, sigmoids with 0 for background in front."""
    checkpoint = load_checkpoint(folder)
    recipe, network = checkpoint.recipe, core_of(checkpoint.network()).eval()
    prepared = prepare(volume, recipe.preprocessing)
    order, halo = recipe.slices.order, recipe.slices.halo
    image = prepared.image.transpose(order)
    room = [((SIDE - side) // 2, SIDE - side - (SIDE - side) // 2) for side in image.shape[:2]]
    padded = np.pad(image, [*room, (halo, halo)])
    total = 0
    for axes in flips:
        mirrored = np.flip(padded, [order.index(axis) for axis in axes])
        slices = []
        for k in range(image.shape[2]):
            stack = np.moveaxis(mirrored[:, :, k : k + 2 * halo + 1], 2, 0)
            with torch.no_grad():
                slices.append(network(torch.from_numpy(np.ascontiguousarray(stack))[None])[0].numpy())
        logits = np.stack(slices, axis=3)
        if recipe.loss.activation == "sigmoid":
            logits = np.concatenate([np.zeros_like(logits[:1]), logits])
        logits = np.flip(logits, [order.index(axis) + 1 for axis in axes])
        total = total + (logits[[0, 2, 1]] if 0 in axes else logits)  # sides swapped
    inner = tuple(slice(before, before + side) for (before, _), side in zip(room, image.shape, strict=False))
    mean = (total / len(flips))[:, *inner].transpose(0, *(1 + order.index(axis) for axis in range(3)))
    return restore_values(np.ascontiguousarray(mean), prepared.grid, volume.grid)


def likely(logits, activation):
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-logits[1:]))
    raised = np.exp(logits - logits.max(axis=0))
    return (raised / raised.sum(axis=0))[1:]


def check(prediction, logits, activation):
    assert (logits.std(axis=(1, 2, 3)) > 0.01).sum() >= 2  # of the classes that the network has a say in
    found = np.stack([one.hu for one in prediction.probabilities.values()])
    np.testing.assert_allclose(found, likely(logits, activation), rtol=0, atol=2e-4)
    second, first = np.sort(logits, axis=0)[-2:]
    clear = first - second > 1e-3
    assert clear.mean() > 0.9
    assert np.array_equal(prediction.mask.labels[clear], logits.argmax(axis=0)[clear])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("neighbours", [1, 3, 5])
@pytest.mark.parametrize("plane", ACROSS)
def test_a_scan_is_every_slice_with_its_neighbours(plane, neighbours, activation, tmp_path):
    folder = model(tmp_path, plane, neighbours, activation)
    volume = scan()
    prediction = Predictor.load(folder, InferenceOptions(**EXACT)).run(volume, probabilities=True)
    assert prediction.mask.grid is volume.grid
    check(prediction, written_out(folder, volume), activation)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_mirrored_copies_are_averaged_with_the_sides_swapped_back(plane, activation, tmp_path):
    folder = model(tmp_path, plane, 3, activation)
    volume = scan("RAS")
    options = InferenceOptions(**EXACT, mirroring=True)
    prediction = Predictor.load(folder, options).run(volume, probabilities=True)
    check(prediction, written_out(folder, volume, [(), (0,), (1,), (0, 1)]), activation)


@pytest.mark.parametrize("plane", ACROSS)
def test_less_memory_takes_fewer_slices_at_a_time_and_gives_the_same(plane, tmp_path):
    folder = model(tmp_path, plane, at_a_time=16)
    volume = scan()
    plenty = Predictor.load(folder, InferenceOptions(**EXACT))
    little = Predictor.load(folder, InferenceOptions(**EXACT, memory_bytes=plenty.estimate(volume.grid) - 1))
    assert little.estimate(volume.grid) < plenty.estimate(volume.grid)
    for one, other in zip(
        plenty.run(volume, probabilities=True).probabilities.values(),
        little.run(volume, probabilities=True).probabilities.values(),
        strict=True,
    ):
        np.testing.assert_allclose(one.hu, other.hu, rtol=0, atol=1e-5)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_slices_of_one_window_each_have_no_confidence_however_many_are_taken_at_a_time(neighbours, tmp_path):
    for at_a_time in (4, 7, 100):
        folder = model(tmp_path / str(at_a_time), neighbours=neighbours, at_a_time=at_a_time)
        confidence = Predictor.load(folder, InferenceOptions(**EXACT)).run(scan()).confidence
        assert np.isnan(list(confidence.values())).all()
    two = [tmp_path / "4", model(tmp_path / "other", neighbours=neighbours, seed=1)]
    confidence = Predictor.load(two, InferenceOptions(**EXACT)).run(scan()).confidence
    assert 0 <= np.nanmax(list(confidence.values())) < 1


def test_several_models_are_averaged_however_many_slices_each_took_at_a_time(tmp_path):
    folders = [model(tmp_path / "a"), model(tmp_path / "b", at_a_time=7, seed=1)]
    volume = scan()
    prediction = Predictor.load(folders, InferenceOptions(**EXACT)).run(volume, probabilities=True)
    check(prediction, sum(written_out(folder, volume) for folder in folders) / 2, "softmax")


@pytest.mark.parametrize("installed", [True, False])
def test_openvino_is_not_asked_for_slices_and_that_is_said(installed, tmp_path, monkeypatch):
    monkeypatch.setattr("ct_attn.inference.backends.openvino_backend.is_installed", lambda: installed)
    said = []
    predictor = Predictor.load(
        model(tmp_path), InferenceOptions(device="cpu", backend="openvino"), said.append
    )
    assert said == ["networks of slices are computed by torch, not by OpenVINO"]
    assert predictor.backends[0].name == "torch cpu"
