"""What holds of a prediction for any scan, with networks whose answer is known."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.errors import UserError
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.network.configs import UNetConfig
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.recipe import InferenceConfig
from ct_attn.training_config import AugmentationConfig, TrainingConfig
from ct_attn.volume import Volume
from tests.unit.grids import CODES, SOME_CODES, grid_of, oblique_grids, voxel_centres_mm
from tests.unit.inference.models import SIDED, Fake, recipe, saved

WINDOW_HU = (-1000.0, 1000.0)


def flipping(*axes) -> TrainingConfig:
    """The training of :func:`tests.unit.inference.models.recipe` with patches mirrored along ``axes``."""
    return TrainingConfig(patch_size=(16, 16, 8), augmentation=AugmentationConfig(flip_axes=axes))


#: All that is there is computed, in windows that are larger and smaller than the scans below.
EVERYTHING = InferenceOptions(body_mask=False)


def above(threshold):
    """Class 1 where the image is above ``threshold``."""
    return lambda windows: np.concatenate([threshold - windows, windows - threshold], axis=1)


def predictor_of(function, options=EVERYTHING, *, spacing_mm=(1.5, 1.7, 2), **changes) -> Predictor:
    preprocessing = PreprocessingConfig(spacing_mm=spacing_mm, hu_window=WINDOW_HU, antialias=False)
    return Predictor([Fake(function)], recipe(preprocessing=preprocessing, **changes), options)


def ramp(grid, axis) -> Volume:
    """HU that are 8 times the mm from the middle along R, A or S."""
    hu = 8 * (voxel_centres_mm(grid)[..., axis] - grid.centre_mm[axis])
    return Volume(hu=np.clip(hu, -1000, 1000).astype(np.float32), grid=grid)


@given(
    oblique_grids(fewest=1, most=40),
    st.integers(0, 2),
    st.sampled_from([UNetConfig(widths=(2, 3, 4)), UNetConfig(widths=(2, 3, 4), norm="instance")]),
)
def test_a_border_in_space_stays_there_on_any_grid(grid, axis, network):
    mask = predictor_of(above(0.5), network=network).predict(ramp(grid, axis))
    assert mask.grid is grid
    points_mm = voxel_centres_mm(grid)
    ahead_mm = points_mm[..., axis] - grid.centre_mm[axis]
    # Beyond the outermost centres of the working grid, up to a voxel of either, its border goes on.
    inner = np.abs(ahead_mm) > 2 * max(2.0, *grid.spacing_mm)
    assert np.array_equal(mask.labels[inner], (ahead_mm > 0)[inner])


@pytest.mark.parametrize("size", [(1, 1, 1), (30, 28, 1), (1, 30, 25), (70, 9, 4), (33, 50, 21)])
@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_a_constant_comes_back_as_that_constant(size, code, shear):
    grid = grid_of(code, size=size, spacing_mm=(0.9, 1.2, 2.1), shear=shear, centre_mm=(10, -20, 300))
    identity = predictor_of(lambda windows: np.concatenate([np.zeros_like(windows), windows], axis=1))
    hu = np.full(grid.shape, 200, dtype=np.int16)
    found = identity.run(Volume(hu=hu, grid=grid), probabilities=True)
    expected = 1 / (1 + np.exp(-0.6))  # 200 HU are 0.6 of the window
    np.testing.assert_allclose(found.probabilities["spleen"].hu, expected, rtol=1e-5)
    assert (found.mask.labels == 1).all()


@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ramp_comes_back_to_interpolation_error(code, axis):
    grid = grid_of(code, size=(40, 36, 30), spacing_mm=(1.1, 0.9, 1.7), centre_mm=(10, -20, 300))
    identity = predictor_of(lambda windows: np.concatenate([np.zeros_like(windows), windows], axis=1))
    found = identity.run(ramp(grid, axis), probabilities=True).probabilities["spleen"].hu
    logit = np.log(found / (1 - found))
    expected = (ramp(grid, axis).hu + 1000) / 2000
    inner = tuple(slice(3, -3) for _ in range(3))
    np.testing.assert_allclose(logit[inner], expected[inner], rtol=0, atol=2e-4)


@given(oblique_grids(fewest=1, most=24), st.integers(0, 2), st.booleans())
def test_a_ramp_comes_back_on_any_grid(grid, axis, antialias):
    preprocessing = PreprocessingConfig(spacing_mm=(1.5, 1.7, 2), hu_window=WINDOW_HU, antialias=antialias)
    identity = Predictor(
        [Fake(lambda windows: np.concatenate([np.zeros_like(windows), windows], axis=1))],
        recipe(preprocessing=preprocessing),
        EVERYTHING,
    )
    volume = ramp(grid, axis)
    found = identity.run(volume, probabilities=True).probabilities["spleen"]
    assert found.grid is grid
    logit = np.log(found.hu / (1 - found.hu))
    # Beyond the outermost centres, and in what a mean reaches of them, values stay as they are there.
    margin = [int(np.ceil(2 * max(2.0, spacing) / spacing)) for spacing in grid.spacing_mm]
    inner = tuple(
        slice(None) if size == 1 else slice(edge, max(edge, size - edge))
        for size, edge in zip(grid.shape, margin, strict=True)
    )
    np.testing.assert_allclose(logit[inner], (volume.hu[inner] + 1000) / 2000, rtol=0, atol=5e-4)


def noise(size=(30, 26, 18)) -> np.ndarray:
    return np.random.default_rng(1).integers(-900, 900, size).astype(np.int16)


def test_copies_in_every_orientation_give_the_same_mask_in_space():
    ras = noise()
    where = {"size": ras.shape, "spacing_mm": (1.1, 0.9, 2.3), "angles": (0.1, 0.2, 0.1)}
    masks = {}
    for code in CODES:
        grid = grid_of(code, **where)
        hu = np.empty(grid.shape, dtype=np.int16)
        voxels = np.rint(grid_of("RAS", **where).to_voxels(voxel_centres_mm(grid))).astype(int)
        hu[...] = ras[tuple(np.moveaxis(voxels, -1, 0))]
        labels = predictor_of(above(0.5)).predict(Volume(hu=hu, grid=grid)).labels
        back = np.empty(ras.shape, dtype=np.uint8)
        back[tuple(np.moveaxis(voxels, -1, 0))] = labels
        masks[code] = back
    for labels in masks.values():
        assert (labels != masks["RAS"]).mean() < 1e-3  # ties alone
    assert 0.3 < masks["RAS"].mean() < 0.7


def sided(windows: np.ndarray) -> np.ndarray:
    """Left kidney where it is bright and R is low, right where R is high: as seen in the window."""
    ahead = np.linspace(-1, 1, windows.shape[2], dtype=np.float32)[:, None, None]
    return np.concatenate([0.5 - windows, (windows - 0.5) * -ahead, (windows - 0.5) * ahead], axis=1)


def test_mirrored_copies_swap_the_sides_back():
    """A network that knows left from right says the same with mirroring and without."""
    grid = grid_of("LPS", size=(32, 30, 12), spacing_mm=(1.5, 1.7, 2))
    volume = Volume(hu=np.where(noise((32, 30, 12)) > 0, 800, -800).astype(np.int16), grid=grid)
    plain = predictor_of(sided, targets=SIDED)
    mirrored = predictor_of(
        sided,
        InferenceOptions(body_mask=False, mirroring=True),
        targets=SIDED,
        training=flipping("R", "A", "S"),
    )
    before, after = plain.run(volume), mirrored.run(volume)
    assert set(np.unique(before.mask.labels)) == {0, 1, 2}
    assert (after.mask.labels != before.mask.labels).mean() < 1e-3
    assert after.confidence == pytest.approx({"left_kidney": 1.0, "right_kidney": 1.0})
    assert len(mirrored.backends[0].shapes) == 8 * len(plain.backends[0].shapes)


def test_only_axes_that_training_mirrored_are_mirrored():
    volume = Volume(hu=noise(), grid=grid_of(size=(30, 26, 18)))
    plain = predictor_of(above(0.5))
    plain.predict(volume)
    for axes in ((), ("S",), ("A", "S")):
        predictor = predictor_of(
            above(0.5),
            InferenceOptions(body_mask=False, mirroring=True),
            training=flipping(*axes),
        )
        predictor.predict(volume)
        assert len(predictor.backends[0].shapes) == 2 ** len(axes) * len(plain.backends[0].shapes)


def test_mirroring_a_network_that_has_seen_no_mirrored_patient_is_said_to_change_nothing():
    notes = []
    Predictor([Fake(above(0.5))], recipe(), InferenceOptions(mirroring=True), on_note=notes.append)
    assert len(notes) == 1
    assert "flip_axes" in notes[0]


def test_the_recipe_says_whether_to_mirror_and_the_user_may_overrule_it():
    volume = Volume(hu=noise(), grid=grid_of(size=(30, 26, 18)))
    counts = []
    for asked in (None, False):
        predictor = predictor_of(
            above(0.5),
            InferenceOptions(body_mask=False, mirroring=asked),
            inference=InferenceConfig(mirroring=True),
            training=flipping("R", "A", "S"),
        )
        predictor.predict(volume)
        counts.append(len(predictor.backends[0].shapes))
    assert counts[0] == 8 * counts[1]


def test_an_ensemble_is_the_mean_of_its_models_and_its_confidence_their_agreement():
    volume = ramp(grid_of(size=(60, 30, 20), spacing_mm=(1.5, 1.7, 2)), 0)
    single = predictor_of(above(0.5))
    ensemble = Predictor(
        [Fake(above(0.45)), Fake(above(0.55))], single.recipe, EVERYTHING
    )  # borders 12.5 mm to either side
    assert np.array_equal(ensemble.predict(volume).labels, single.predict(volume).labels)
    assert 0.5 < ensemble.run(volume).confidence["spleen"] < 0.95


def test_what_was_computed_once_has_no_confidence():
    volume = Volume(hu=noise((10, 10, 6)), grid=grid_of(size=(10, 10, 6)))
    assert isnan(predictor_of(above(0.5)).run(volume).confidence["spleen"])


def test_models_that_predict_something_else_are_not_averaged(tmp_path):
    first = saved(tmp_path / "first")
    second = saved(tmp_path / "second", targets=SIDED)
    with pytest.raises(UserError, match="expected the targets of"):
        Predictor.load([first, second], InferenceOptions(backend="torch"))


def test_folds_are_loaded_as_one(tmp_path):
    folds = [saved(tmp_path / f"fold{seed}", seed=seed) for seed in range(2)]
    volume = Volume(hu=noise() // 10, grid=grid_of(size=(30, 26, 18)))
    options = InferenceOptions(backend="torch")
    predictor = Predictor.load(folds, options)
    assert len(predictor.backends) == 2
    both = predictor.run(volume, probabilities=True).probabilities["spleen"].hu
    single = [
        Predictor.load(fold, options).run(volume, probabilities=True).probabilities["spleen"].hu
        for fold in folds
    ]
    low, high = np.minimum(*single), np.maximum(*single)
    assert ((both > low - 1e-4) & (both < high + 1e-4)).all()


def test_out_of_memory_takes_smaller_windows_and_says_so():
    volume = Volume(hu=noise((64, 64, 40)), grid=grid_of(size=(64, 64, 40), spacing_mm=(1.5, 1.7, 2)))
    notes: list[str] = []
    backend = Fake(above(0.5), most_voxels=60_000)
    predictor = Predictor([backend], predictor_of(above(0.5)).recipe, EVERYTHING, on_note=notes.append)
    found = predictor.run(volume)
    assert np.array_equal(found.mask.labels, predictor_of(above(0.5)).predict(volume).labels)
    assert found.notes == tuple(notes)
    assert "windows of at most" in notes[-1]
    assert max(np.prod(shape) for shape in backend.shapes[len(notes) :]) <= 60_000


def test_out_of_memory_with_the_smallest_windows_goes_on_with_the_cpu(tmp_path):
    model = saved(tmp_path)
    notes: list[str] = []
    predictor = Predictor.load(model, InferenceOptions(backend="torch"), notes.append)
    volume = Volume(hu=noise(), grid=grid_of(size=(30, 26, 18)))
    expected = predictor.predict(volume).labels
    predictor.backends = [Fake(above(0.5), most_voxels=0)]
    assert np.array_equal(predictor.predict(volume).labels, expected)
    assert notes[-1] == "the device is out of memory: going on with the CPU"


def test_where_no_device_has_room_the_user_hears_of_it():
    predictor = Predictor([Fake(above(0.5), most_voxels=0)], recipe(), EVERYTHING)
    with pytest.raises(UserError, match="expected memory for one window"):
        predictor.predict(Volume(hu=noise(), grid=grid_of(size=(30, 26, 18))))


def test_air_around_the_body_is_background_and_not_computed():
    hu = np.full((100, 90, 20), -1000, dtype=np.int16)
    hu[30:70, 30:60] = 500
    volume = Volume(hu=hu, grid=grid_of(size=hu.shape, spacing_mm=(4, 4, 4)))
    everywhere = lambda windows: np.concatenate([0 * windows, 0 * windows + 1], axis=1)  # noqa: E731
    cut = predictor_of(everywhere, InferenceOptions(), spacing_mm=(4, 4, 4))
    whole = predictor_of(everywhere, spacing_mm=(4, 4, 4))
    labels = cut.predict(volume).labels
    assert (labels[30:70, 30:60] == 1).all()
    assert not labels[:20].any()
    assert (whole.predict(volume).labels == 1).all()
    computed = [sum(np.prod(shape) for shape in p.backends[0].shapes) for p in (cut, whole)]
    assert computed[0] < 0.6 * computed[1]


def test_fast_is_no_coarser_than_the_training_of_each_model_showed(tmp_path):
    zooms = [(1.0, 1.2), (0.8, 1.1)]
    folders = [
        saved(
            tmp_path / str(zoom[1]),
            training=TrainingConfig(patch_size=(16, 16, 8), augmentation=AugmentationConfig(zoom=zoom)),
        )
        for zoom in zooms
    ]
    for models in (folders, folders[::-1]):
        fast = Predictor.load(models, InferenceOptions(device="cpu", backend="torch", fast=True))
        assert fast.preprocessing.spacing_mm == pytest.approx((1.65, 1.65, 2))


def test_fast_computes_less_on_a_coarser_grid():
    volume = Volume(hu=noise((60, 60, 40)), grid=grid_of(size=(60, 60, 40), spacing_mm=(1.5, 1.7, 2)))
    plain, fast = predictor_of(above(0.5)), predictor_of(above(0.5), InferenceOptions(fast=True))
    assert fast.preprocessing.spacing_mm == pytest.approx((1.95, 2.21, 2))
    assert fast.predict(volume).grid is volume.grid
    plain.predict(volume)
    computed = [sum(np.prod(shape) for shape in p.backends[0].shapes) for p in (fast, plain)]
    assert computed[0] <= computed[1]
