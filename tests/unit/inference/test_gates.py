"""Features around one place: where they are taken, and that they are the whole scan's."""

from __future__ import annotations

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.inference.backends.backend import OutOfMemoryError
from ct_attn.inference.backends.torch_backend import TorchBackend
from ct_attn.inference.blending import blended
from ct_attn.inference.gates import place_to_show
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.configs import SlicesConfig
from ct_attn.network.unet import UNetConfig
from ct_attn.preprocessing import PreprocessingConfig, prepare
from ct_attn.regrid import nearest_on
from ct_attn.training_config import TrainingConfig
from ct_attn.volume import Mask, Volume
from tests.unit.grids import SOME_CODES, grid_of
from tests.unit.inference.models import saved


def scan(code="RAS", size=(30, 26, 20)) -> Volume:
    grid = grid_of(
        code, size=size, spacing_mm=(1.5, 1.5, 2.0), angles=(0.1, 0, -0.2), centre_mm=(10, 20, 900)
    )
    hu = np.random.default_rng(0).integers(-20, 120, grid.shape).astype(np.int16)
    return Volume(hu=hu, grid=grid)


def predictor(folder, **changes) -> Predictor:
    return Predictor.load(saved(folder, **changes), InferenceOptions(device="cpu", backend="torch"))


@pytest.mark.parametrize("code", SOME_CODES)
def test_the_coefficients_are_those_of_the_whole_scan(code, tmp_path):
    volume = scan(code)
    attentive = predictor(tmp_path)
    maps = attentive.attention(volume)
    place = volume.grid.centre_mm + np.array([8.0, 4.0, -9.0])
    views = attentive.features(volume, place)
    image = prepare(volume, attentive.preprocessing)
    assert views.gates == tuple(maps)
    for plane in (views.axial, views.sagittal):
        assert plane.image.shape == plane.grid.shape
        at = image.grid.to_voxels(plane.grid.to_mm(np.zeros(3))).round().astype(int)
        box = tuple(slice(start, start + n) for start, n in zip(at, plane.grid.shape, strict=True))
        np.testing.assert_array_equal(plane.image, image.image[box])
        whole = np.stack([alpha.hu for alpha in maps.values()])
        there = volume.grid.to_voxels(plane.grid.to_mm(np.argwhere(np.ones(plane.grid.shape)))).round()
        i, j, k = there.astype(int).T
        found = plane.maps.reshape(len(maps), 3, *plane.grid.shape)[:, 1].reshape(len(maps), -1)
        np.testing.assert_allclose(found, whole[:, i, j, k], atol=1e-4)
    across = image.grid.to_voxels(place).round()
    assert image.grid.to_voxels(views.axial.grid.centre_mm)[2] == pytest.approx(across[2], abs=1e-6)
    assert image.grid.to_voxels(views.sagittal.grid.centre_mm)[0] == pytest.approx(across[0], abs=1e-6)


def test_one_window_is_computed_and_lies_around_the_place(tmp_path, monkeypatch):
    attentive = predictor(
        tmp_path, network=AttentionUNetConfig(widths=(2, 3, 4), gate_activation="softmax")
    )  # softmax over the window: it keeps the training's patch
    shapes = []
    logits = TorchBackend.logits
    monkeypatch.setattr(
        TorchBackend, "logits", lambda self, batch: (shapes.append(batch.shape), logits(self, batch))[1]
    )
    volume = scan(size=(60, 60, 40))
    place = volume.grid.to_mm(np.array([40.0, 12.0, 20.0]))
    views = attentive.features(volume, place)
    assert shapes == [(1, 1, 16, 16, 8)]
    assert views.axial.grid.shape == (16, 16, 1)
    assert views.sagittal.grid.shape == (1, 16, 8)
    inside = views.axial.grid.to_voxels(place)
    assert (np.abs(inside[:2] - 8) < 1.5).all()
    corner = attentive.features(volume, volume.grid.to_mm(np.zeros(3)))
    assert corner.axial.grid.to_voxels(volume.grid.to_mm(np.zeros(3))) == pytest.approx(0, abs=0.6)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_network_of_slices_shows_the_same_however_many_it_takes_at_a_time(plane, tmp_path):
    volume = scan(size=(30, 26, 20))
    sides = {"axial": (32, 32, 1), "coronal": (32, 1, 32), "sagittal": (1, 32, 32)}[plane]
    steps = [1.5, 1.5, 2.0]
    steps[["sagittal", "coronal", "axial"].index(plane)] = None
    shown = []
    for at_a_time in (2, 40):
        slices = SlicesConfig(plane=plane, neighbours=3, at_a_time=at_a_time)
        attentive = predictor(
            tmp_path / str(at_a_time),
            slices=slices,
            preprocessing=PreprocessingConfig(spacing_mm=tuple(steps), hu_window=(0, 100)),
            training=TrainingConfig(patch_size=sides),
            network=AttentionUNetConfig(dims=2, widths=(2, 3, 4)),
        )
        shown.append(attentive.features(volume, volume.grid.centre_mm))
    few, all_ = shown
    assert few.axial.maps.shape == (3, *few.axial.grid.shape)
    np.testing.assert_allclose(few.axial.maps, all_.axial.maps, atol=1e-5)
    np.testing.assert_allclose(few.sagittal.maps, all_.sagittal.maps, atol=1e-5)
    assert few.axial.grid.shape[:2] == (30, 26)
    assert few.sagittal.grid.shape[1:] == (26, 20)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_of_slices_of_any_plane_a_few_are_held_at_a_time(plane, tmp_path, monkeypatch):
    sides = {"axial": (8, 8, 1), "coronal": (8, 1, 8), "sagittal": (1, 8, 8)}[plane]
    steps = [1.5, 1.5, 2.0]
    steps[["sagittal", "coronal", "axial"].index(plane)] = None
    attentive = predictor(
        tmp_path,
        slices=SlicesConfig(plane=plane, neighbours=3, at_a_time=2),
        preprocessing=PreprocessingConfig(spacing_mm=tuple(steps), hu_window=(0, 100)),
        training=TrainingConfig(patch_size=sides),
        network=AttentionUNetConfig(dims=2, widths=(2, 3, 4)),
    )
    held = []

    def watched(*arguments, **keywords):
        for slab in blended(*arguments, **keywords):
            held.append(slab.values.shape[3])
            yield slab

    monkeypatch.setattr("ct_attn.inference.gates.blended", watched)
    volume = scan()
    views = attentive.features(volume, volume.grid.centre_mm)
    assert max(held) <= 4  # with a neighbour on either side
    assert views.axial.maps.shape[1:] == views.axial.image.shape
    assert views.sagittal.maps.shape[1:] == views.sagittal.image.shape


def test_a_device_that_is_too_small_is_given_smaller_windows(tmp_path, monkeypatch):
    volume, notes = scan(size=(90, 80, 40)), []
    attentive = predictor(tmp_path)
    attentive.on_note = notes.append
    expected = attentive.attention(volume)["level1"].hu
    logits, most_voxels = TorchBackend.logits, 40_000

    def small(self, batch):
        if batch.size > most_voxels:
            raise OutOfMemoryError("tried to allocate 2 GiB")
        return logits(self, batch)

    monkeypatch.setattr(TorchBackend, "logits", small)
    found = attentive.attention(volume)["level1"].hu
    np.testing.assert_allclose(found, expected, atol=0.05)  # windows have borders
    assert "going on with windows" in notes[0]
    attentive.features(volume, volume.grid.centre_mm)
    most_voxels = 0
    for show in (attentive.attention, lambda one: attentive.features(one, one.grid.centre_mm)):
        with pytest.raises(UserError, match="expected memory for one window"):
            show(volume)


def test_a_network_without_gates_has_no_features(tmp_path):
    plain = predictor(tmp_path, network=UNetConfig(widths=(2, 3, 4)))
    with pytest.raises(UserError, match="expected a network with attention gates, found kind unet"):
        plain.features(scan(), np.zeros(3))


@pytest.mark.parametrize("code", SOME_CODES)
def test_the_place_lies_in_the_fullest_slices_of_the_largest_structure(code):
    grid = grid_of(code, size=(20, 18, 16), spacing_mm=(2.0, 2.0, 3.0))
    ras = grid_of("RAS", size=(20, 18, 16), spacing_mm=(2.0, 2.0, 3.0))
    labels = np.zeros(ras.shape, dtype=np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    labels[8:16, 6:14, 9:12] = 2
    labels[9:15, 7:13, 10] = 2
    labels[12, 6:14, 8] = 2
    mask = nearest_on(Mask(labels=labels, grid=ras), grid)
    place = ras.to_voxels(place_to_show(mask, (1, 2)))
    assert place[0] == pytest.approx(12)
    assert place[2] in (9, 10, 11)
    assert ras.to_voxels(place_to_show(mask, (1,))).max() < 5
    np.testing.assert_allclose(place_to_show(mask, (7,)), grid.centre_mm)
