from __future__ import annotations

import copy

import pytest
import torch

from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig


def trained_a_step(config, weights, image):
    network = AttentionUNet(config, in_channels=1, n_classes=3).double()
    network.load_state_dict(copy.deepcopy(weights))
    logits = network(image)
    logits.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return logits, gradients, network.state_dict()


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_computing_twice_changes_no_number(norm):
    """Logits, gradients and the normalisations' running statistics, counted once."""
    kept = AttentionUNetConfig(widths=(3, 4, 5), norm=norm)
    weights = AttentionUNet(kept, in_channels=1, n_classes=3).double().state_dict()
    image = torch.randn(2, 1, 8, 8, 16, dtype=torch.float64)
    one = trained_a_step(kept, weights, image)
    two = trained_a_step(kept.model_copy(update={"checkpointing": True}), weights, image)
    assert torch.equal(one[0], two[0])
    for first, second in zip(one[1:], two[1:], strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_less_is_kept_for_the_gradients():
    def kept_bytes(config):
        network = AttentionUNet(config, in_channels=1, n_classes=3)
        storages = {}

        def note(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits = network(torch.randn(1, 1, 32, 32, 32))
        del logits
        return sum(storages.values())

    full = AttentionUNetConfig(widths=(8, 16, 32))
    assert kept_bytes(full.model_copy(update={"checkpointing": True})) < 0.5 * kept_bytes(full)
