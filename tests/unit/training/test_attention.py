from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ct_attn.network.build import build_network
from ct_attn.network.configs import UNetConfig
from ct_attn.training.attention import keep_attention
from tests.cohorts import tiny_recipe


@pytest.fixture
def recipe():
    return tiny_recipe("training.attention_epochs=[1]", "training.patch_size=[16, 16, 8]")


@pytest.fixture
def case():
    """A case with most labelled voxels in slice 9."""
    label = torch.zeros(1, 20, 18, 12, dtype=torch.uint8)
    label[0, 2:4, 2:4, 3] = 1
    label[0, 2:9, 2:9, 9] = 2
    image = torch.rand(1, 20, 18, 12, generator=torch.Generator().manual_seed(0))
    return {"case_id": "a", "image": image, "label": label}


def drawn(recipe, **changes):
    return build_network(recipe.network.model_copy(update=changes), in_channels=1, n_classes=4)


def end_epoch(callback, epoch, last=4):
    trainer = SimpleNamespace(
        current_epoch=epoch - 1,
        max_epochs=last,
        precision_plugin=SimpleNamespace(forward_context=torch.no_grad),
    )
    callback.on_train_epoch_end(trainer, SimpleNamespace(device=torch.device("cpu")))


def test_the_slice_with_most_labelled_voxels_is_kept(recipe, case):
    kept = keep_attention(drawn(recipe), recipe, [case])
    assert kept.case_id == "a"
    assert torch.equal(kept.label, case["label"][0, :, :, 9])
    assert torch.equal(kept.image[..., kept.position], case["image"][0, :, :, 9])


def test_coefficients_are_kept_after_chosen_epochs_and_the_last(recipe, case):
    kept = keep_attention(drawn(recipe), recipe, [case])
    for epoch in (1, 2, 3, 4):
        end_epoch(kept, epoch)
    assert list(kept.maps) == [1, 4]
    for alpha in kept.maps[1].values():
        assert alpha.shape == (20, 18)
        assert 0 < alpha.min() <= alpha.max() < 1


def test_a_training_goes_on_as_it_was(recipe, case):
    network = drawn(recipe).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    end_epoch(keep_attention(network, recipe, [case]), 1)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_was_kept_is_part_of_the_state(recipe, case):
    kept = keep_attention(drawn(recipe), recipe, [case])
    end_epoch(kept, 1)
    other = keep_attention(drawn(recipe), recipe, [case])
    other.load_state_dict(kept.state_dict())
    assert other.maps == kept.maps
    for alpha in kept.maps[1].values():  # a slice of its own, not a view of the whole slab
        assert alpha.untyped_storage().nbytes() == alpha.numel() * 4


def test_a_network_without_gates_keeps_nothing(recipe, case):
    plain = build_network(UNetConfig(widths=(4, 8)), in_channels=1, n_classes=4)
    assert keep_attention(plain, recipe, [case]) is None
