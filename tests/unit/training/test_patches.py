"""Random patches: repeatable, balanced, image and label moved together."""

from __future__ import annotations

import pytest
import torch

from ct_attn.recipe import AugmentationConfig, TrainingConfig
from ct_attn.training.patches import PatchDataset

SIZE = (32, 32, 16)
STILL = AugmentationConfig(affine_probability=0, noise=0, brightness=0, contrast=0)


def config(**changes):
    fields = {"patch_size": SIZE, "batches_per_epoch": 10, "batch_size": 4, "augmentation": STILL}
    return TrainingConfig(**fields | changes)


def cube_case():
    """A bright cube of class 1 and a small bright corner of class 2 in a dark volume."""
    label = torch.zeros(1, 60, 50, 40, dtype=torch.uint8)
    label[:, 20:40, 20:40, 10:30] = 1
    label[:, 50:54, 4:8, 2:6] = 2
    known = torch.tensor([True, True, False])
    return {"case_id": "cube", "image": (label > 0).to(torch.float16), "label": label, "known": known}


def patches(epoch=0, **changes):
    return PatchDataset([cube_case()], config(**changes), n_classes=3, epoch=epoch)


def test_a_patch_has_the_size_and_types_training_takes():
    patch = patches()[0]
    assert patch["image"].shape == (1, *SIZE)
    assert patch["image"].dtype == torch.float32
    assert patch["label"].shape == SIZE
    assert patch["label"].dtype == torch.uint8
    assert patch["known"].tolist() == [True, True, False]


def test_a_patch_is_the_same_whenever_it_is_drawn():
    first, again = patches(augmentation=AugmentationConfig()), patches(augmentation=AugmentationConfig())
    _ = again[7], again[3]
    assert torch.equal(first[5]["image"], again[5]["image"])
    assert torch.equal(first[5]["label"], again[5]["label"])


@pytest.mark.parametrize("changes", [{"epoch": 1}, {"seed": 9}])
def test_another_epoch_or_seed_draws_other_patches(changes):
    assert not torch.equal(patches()[0]["label"], patches(**changes)[0]["label"])


def test_a_small_class_is_seen_as_often_as_a_large_one():
    drawn = [patches()[index]["label"] for index in range(40)]
    with_small = sum(bool((label == 2).any()) for label in drawn)
    assert with_small >= 10  # a third of 40 patches is centred on it; by chance it would be in 3


def test_image_and_label_move_together():
    moving = AugmentationConfig(affine_probability=1, noise=0, brightness=0, contrast=0)
    for index in range(6):
        patch = patches(augmentation=moving)[index]
        same = (patch["image"][0] > 0.5) == (patch["label"] > 0)
        assert same.float().mean() > 0.97


def test_noise_changes_the_image_and_not_the_label():
    noisy = AugmentationConfig(affine_probability=0, noise=0.2, brightness=0, contrast=0)
    still, changed = patches(), patches(augmentation=noisy)
    differing = [
        index for index in range(8) if not torch.equal(still[index]["image"], changed[index]["image"])
    ]
    assert differing
    assert all(torch.equal(still[index]["label"], changed[index]["label"]) for index in range(8))


def test_a_case_smaller_than_a_patch_is_padded():
    case = cube_case()
    small = {
        key: value[:, :20, :20, :8] if key in ("image", "label") else value for key, value in case.items()
    }
    dataset = PatchDataset([small], config(), n_classes=3, epoch=0)
    assert dataset[0]["image"].shape == (1, *SIZE)


def test_an_epoch_has_its_number_of_patches():
    dataset = patches()
    assert len(dataset) == 40
    with pytest.raises(IndexError):
        dataset[40]
