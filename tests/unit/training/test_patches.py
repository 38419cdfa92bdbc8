"""Random patches: repeatable, balanced, image and label moved together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.recipe import Recipe
from ct_attn.training.patches import PatchDataset, draw_start, draw_voxel, patch_start
from ct_attn.training_config import AugmentationConfig, TrainingConfig
from tests.unit.training.cached_cases import cached_case

SIZE = (32, 32, 16)
STILL = AugmentationConfig(affine_probability=0, intensity_probability=0, resolution_probability=0)
TARGETS = {"pancreas": ("pancreas",), "spleen": ("spleen",)}


def recipe(targets=None, spacing_mm=(2, 2, 2), **changes):
    fields = {"patch_size": SIZE, "batches_per_epoch": 10, "batch_size": 4, "augmentation": STILL}
    network = {"kind": "unet", "widths": [4, 8]}
    return Recipe(
        name="patches",
        targets=targets or TARGETS,
        preprocessing=PreprocessingConfig(spacing_mm=spacing_mm),
        network=network,
        training=TrainingConfig(**fields | changes),
    )


@pytest.fixture
def cube(tmp_path):
    """A bright cube of class 1 and a small bright corner of class 2 in a dark volume."""
    label = np.zeros((60, 50, 40), dtype=np.uint8)
    label[20:40, 20:40, 10:30] = 1
    label[50:54, 4:8, 2:6] = 2
    return cached_case(tmp_path, image=label > 0, label=label, known=(True, True, False))


@pytest.fixture
def patches(cube):
    def make(epoch=0, **changes):
        return PatchDataset([cube], recipe(**changes), epoch=epoch)

    return make


def test_a_patch_has_the_size_and_types_training_takes(patches):
    patch = patches()[0]
    assert patch["image"].shape == (1, *SIZE)
    assert patch["image"].dtype == torch.float32
    assert patch["label"].shape == SIZE
    assert patch["label"].dtype == torch.uint8
    assert patch["known"].tolist() == [True, True, False]


def test_a_patch_is_the_same_whenever_it_is_drawn(patches):
    first, again = patches(augmentation=AugmentationConfig()), patches(augmentation=AugmentationConfig())
    _ = again[7], again[3]
    assert torch.equal(first[5]["image"], again[5]["image"])
    assert torch.equal(first[5]["label"], again[5]["label"])


@pytest.mark.parametrize("changes", [{"epoch": 1}, {"seed": 9}])
def test_another_epoch_or_seed_draws_other_patches(patches, changes):
    assert not torch.equal(patches()[0]["label"], patches(**changes)[0]["label"])


def test_processes_share_the_batches_that_one_would_draw(cube):
    def drawn(rank, n_processes):
        return PatchDataset([cube], recipe(batches_per_epoch=6), epoch=3, rank=rank, n_processes=n_processes)

    alone = drawn(0, 1)
    for n_processes in (2, 3):
        for rank in range(n_processes):
            share = drawn(rank, n_processes)
            assert len(share) == len(alone) / n_processes
            for batch in range(6 // n_processes):
                for place in (0, 3):
                    number = 4 * (batch * n_processes + rank) + place
                    assert torch.equal(share[4 * batch + place]["image"], alone[number]["image"])
    assert len(drawn(0, 4)) == 4 * 2  # rounded up, alike for all


def test_a_patch_says_which_case_it_shows_and_from_where(patches, cube):
    patch = patches()[2]
    i, j, k = patch["start"].tolist()
    whole = cube.open().label
    assert patch["case_id"] == cube.case_id
    assert torch.equal(patch["label"], whole[i : i + SIZE[0], j : j + SIZE[1], k : k + SIZE[2]])


def test_the_centre_lies_in_each_class_equally_often_and_anywhere_in_it(cube):
    case = cube.open()
    drawn = [draw_voxel(case, np.random.default_rng(seed)) for seed in range(3000)]
    codes = np.array([int(case.label[voxel]) for voxel in drawn])
    counts = np.bincount(codes, minlength=3)
    assert (abs(counts - 1000) < 4 * np.sqrt(3000 * 2 / 9)).all()
    in_corner = np.array(drawn)[codes == 2]
    assert len(np.unique(in_corner, axis=0)) == 4**3
    assert in_corner.mean(axis=0) == pytest.approx([51.5, 5.5, 3.5], abs=0.2)


def test_a_patch_may_lie_anywhere_every_position_as_often_as_any_other():
    rng = np.random.default_rng(4)
    starts = np.array([draw_start((6, 32, 20), (4, 31, 32), rng) for _ in range(3000)])
    assert (starts[:, 2] == -6).all()  # smaller than the patch: in its middle
    places, counts = np.unique(starts[:, :2], axis=0, return_counts=True)
    assert places.tolist() == [[i, j] for i in range(3) for j in range(2)]
    assert (abs(counts - 500) < 4 * np.sqrt(3000 * 5 / 36)).all()


def test_the_recipe_says_whether_centres_are_in_classes_or_patches_anywhere(patches):
    assert recipe().training.patch_centres == "classes"
    anywhere = patches(patch_centres="anywhere", batches_per_epoch=100)
    starts = np.array([anywhere[number]["start"].tolist() for number in range(400)])
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert starts.max(axis=0).tolist() == [60 - 32, 50 - 32, 40 - 16]
    assert starts.mean(axis=0) == pytest.approx([14, 9, 12], abs=1.5)  # and not heaped at the borders
    by_class = patches(patch_centres="classes", batches_per_epoch=100)
    in_corner = [(by_class[number]["label"] == 2).any() for number in range(400)]
    assert np.mean(in_corner) > 0.3  # a class of its own, however small
    assert np.mean([(anywhere[number]["label"] == 2).any() for number in range(400)]) < 0.1


def test_a_patch_lies_around_its_centre_and_within_the_volume():
    shape, size = (60, 50, 40), (32, 31, 16)
    assert patch_start((30, 30, 20), shape, size) == (14, 15, 12)
    assert patch_start((0, 49, 39), shape, size) == (0, 19, 24)


def test_image_and_label_move_together(patches):
    moving = STILL.model_copy(update={"affine_probability": 1})
    for index in range(6):
        patch = patches(augmentation=moving)[index]
        same = (patch["image"][0] > 0.5) == (patch["label"] > 0)
        assert same.float().mean() > 0.97


def test_noise_changes_the_image_and_not_the_label(patches):
    noisy = STILL.model_copy(update={"intensity_probability": 1})
    still, changed = patches(), patches(augmentation=noisy)
    differing = [
        index for index in range(8) if not torch.equal(still[index]["image"], changed[index]["image"])
    ]
    assert differing
    assert all(torch.equal(still[index]["label"], changed[index]["label"]) for index in range(8))


def test_a_case_smaller_than_a_patch_lies_in_its_middle(tmp_path):
    label = np.ones((20, 40, 8), dtype=np.uint8)
    small = cached_case(tmp_path, image=label, label=label, known=(True, True, True))
    patch = PatchDataset([small], recipe(), epoch=0)[0]
    expected = torch.zeros(SIZE)
    expected[6:26, :, 4:12] = 1
    assert torch.equal(patch["image"][0], expected)
    assert torch.equal(patch["label"], expected.to(torch.uint8))


def test_an_epoch_has_its_number_of_patches(patches):
    dataset = patches()
    assert len(dataset) == 40
    with pytest.raises(IndexError):
        dataset[40]


def test_any_patch_can_be_drawn_again_by_processes_of_their_own(patches):
    changes = AugmentationConfig(flip_axes=("A",))
    alone = patches(augmentation=changes)
    loader = DataLoader(alone, batch_size=4, num_workers=2, multiprocessing_context="spawn")
    for number, batch in enumerate(loader):
        for place in range(4):
            for key, value in alone[4 * number + place].items():
                found = batch[key][place]
                assert found == value if isinstance(value, str) else torch.equal(found, value)
        if number == 1:
            break


SIDED = {"left": ("left_kidney",), "right": ("right_kidney",), "pancreas": ("pancreas",)}


@pytest.fixture
def kidneys(tmp_path):
    """Left kidney (1) in the first half along R, right one (2) in the other; the right one unlabelled."""
    label = np.zeros((32, 32, 16), dtype=np.uint8)
    label[4:12, 8:16] = 1
    label[20:30, 8:16] = 2
    return cached_case(tmp_path, image=label > 0, label=label, known=(True, True, False, True))


def drawn_with(case, axes):
    """The patches of an epoch that may be flipped along ``axes``."""
    augmentation = STILL.model_copy(update={"flip_axes": axes})
    dataset = PatchDataset([case], recipe(SIDED, augmentation=augmentation), epoch=0)
    return [dataset[index] for index in range(len(dataset))]


def test_a_flip_along_r_keeps_the_left_kidney_left(kidneys):
    flipped = 0
    for patch in drawn_with(kidneys, ("R",)):
        label = patch["label"]
        assert (label[:16] != 2).all()  # what lies in the first half is a left kidney
        assert (label[16:] != 1).all()
        assert torch.equal(patch["image"][0] > 0.5, label > 0)
        right_kidney_is_small = int((label == 2).sum()) < int((label == 1).sum())
        assert patch["known"].tolist() == [
            True,
            *((False, True) if right_kidney_is_small else (True, False)),
            True,
        ]
        flipped += right_kidney_is_small
    assert 8 < flipped < 32


def test_flips_along_other_axes_mirror_every_second_patch_and_leave_codes(kidneys):
    whole = kidneys.open().label
    patches = drawn_with(kidneys, ("A", "S"))  # along S the case is the same throughout
    mirrored = [torch.equal(patch["label"], whole.flip(1)) for patch in patches]
    for patch, turned in zip(patches, mirrored, strict=True):
        assert turned or torch.equal(patch["label"], whole)
        assert patch["known"].tolist() == [True, True, False, True]
    assert 8 < sum(mirrored) < 32


def test_a_turned_patch_shows_the_patient_beyond_its_edges(tmp_path):
    """Cropping first and turning then would fill the corners with the edge's values."""
    rows = np.arange(120, dtype=np.float32)[:, None, None] / 120
    image = np.broadcast_to(rows, (120, 120, 16))
    case = cached_case(tmp_path, image=image, label=np.zeros(image.shape, np.uint8), known=(True, True, True))
    moving = STILL.model_copy(update={"affine_probability": 1})
    dataset = PatchDataset([case], recipe(augmentation=moving, patch_size=(32, 32, 16)), epoch=0)
    checked = 0
    for index in range(20):
        patch = dataset[index]["image"][0, :, :, 0]
        if (patch > 0.02).all():  # no part of it lies outside the volume
            curvature = patch[2:] - 2 * patch[1:-1] + patch[:-2]
            assert curvature.abs().max() < 2e-3
            checked += 1
    assert checked > 10


def sliced(plane, neighbours, patch_size, **changes):
    across = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    fields = {"batches_per_epoch": 10, "batch_size": 4, "augmentation": STILL} | changes
    return Recipe(
        name="slices",
        targets=TARGETS,
        preprocessing=PreprocessingConfig(
            spacing_mm=tuple(None if axis == across else 2 for axis in range(3))
        ),
        slices={"plane": plane, "neighbours": neighbours},
        network={"kind": "unet", "dims": 2, "widths": [4, 8]},
        training=TrainingConfig(patch_size=patch_size, **fields),
    )


@pytest.fixture
def noise(tmp_path):
    """Values of which no two are alike, and labels that are their half, rounded."""
    image = np.random.default_rng(3).permutation(30 * 28 * 26).reshape(30, 28, 26) % 1999
    label = (image % 3).astype(np.uint8)
    return cached_case(tmp_path, image=image, label=label, known=(True,) * 3), image


@pytest.mark.parametrize("neighbours", [1, 3, 5])
@pytest.mark.parametrize(
    ("plane", "size"), [("axial", (16, 8, 1)), ("coronal", (8, 2, 16)), ("sagittal", (1, 16, 8))]
)
def test_slices_come_with_their_neighbours_and_labels_of_their_own(noise, plane, size, neighbours):
    case, image = noise
    across = ("sagittal", "coronal", "axial").index(plane)
    wider = list(size)
    wider[across] += neighbours - 1
    half = neighbours // 2
    padded = np.pad(image, [(half, half) if axis == across else (0, 0) for axis in range(3)])
    padded = padded.astype(np.float16).astype(np.float32)
    dataset = PatchDataset([case], sliced(plane, neighbours, size), epoch=0)
    for index in range(4):
        patch = dataset[index]
        assert patch["image"].shape == (1, *wider)
        assert patch["label"].shape == size
        found = patch["image"][0].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(wider))
        (place, *others) = np.argwhere(windows[..., 0, 0, 0] == found[0, 0, 0])
        place = next(at for at in [place, *others] if (windows[tuple(at)] == found).all())
        inner = tuple(slice(at, at + side) for at, side in zip(place, size, strict=True))
        assert (patch["label"].numpy() == image[inner] % 3).all()


def test_slices_are_changed_in_plane_only(tmp_path):
    image = np.broadcast_to(np.arange(1, 10, dtype=np.float32), (24, 24, 9))
    case = cached_case(tmp_path, image=image, label=np.zeros(image.shape), known=(True, True, True))
    blurred = AugmentationConfig(
        affine_probability=0,
        intensity_probability=0,
        resolution_probability=1,
        blur_voxels=3,
        low_resolution=1,
    )
    plain = PatchDataset([case], sliced("axial", 3, (16, 16, 1)), epoch=0)[0]["image"]
    changes = sliced("axial", 3, (16, 16, 1), augmentation=blurred)
    changed = PatchDataset([case], changes, epoch=0)[0]["image"]
    there = plain[0, 0, 0] > 0  # the outermost slices have neighbours beyond the scan
    share = (changed / plain)[..., there]
    assert not torch.allclose(changed, plain)  # towards the border, beyond which there is nothing
    assert torch.allclose(share, share[..., :1].expand_as(share), atol=1e-3)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_turned_slices_show_image_and_label_alike(tmp_path, plane):
    label = np.zeros((40, 40, 40), dtype=np.uint8)
    label[10:30, 12:26, 14:34] = 1
    case = cached_case(tmp_path, image=label > 0, label=label, known=(True, True, False))
    size = tuple(1 if name == plane else 24 for name in ("sagittal", "coronal", "axial"))
    turned = AugmentationConfig(affine_probability=1, intensity_probability=0, resolution_probability=0)
    dataset = PatchDataset([case], sliced(plane, 3, size, augmentation=turned), epoch=0)
    across = ("sagittal", "coronal", "axial").index(plane)
    for index in range(8):
        patch = dataset[index]
        middle = patch["image"][0].select(across, 1)
        same = (middle > 0.5) == (patch["label"].select(across, 0) == 1)
        assert same.float().mean() > 0.97
