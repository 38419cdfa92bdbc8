from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from ct_attn.network.build import build_network
from ct_attn.network.resnet_unet import ResNetAttentionUNet, ResNetAttentionUNetConfig


def drawn(**fields):
    config = ResNetAttentionUNetConfig(**{"dims": 2, "finest_width": 4, **fields})
    return build_network(config, in_channels=1, n_classes=3)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize(("dims", "size"), [(2, (64, 32)), (3, (32, 64, 32))])
def test_logits_have_the_images_size_at_every_depth(depth, dims, size):
    with torch.device("meta"):
        network = drawn(depth=depth, dims=dims)
        logits = network(torch.zeros(1, 1, *size))
    assert type(network) is ResNetAttentionUNet
    assert logits.shape == (1, 3, *size)


def test_widths_follow_from_the_depth():
    assert ResNetAttentionUNetConfig(depth=34).widths == (16, 64, 64, 128, 256, 512)
    assert ResNetAttentionUNetConfig(depth=101, finest_width=8).widths == (8, 64, 256, 512, 1024, 2048)
    assert ResNetAttentionUNetConfig().size_multiple == (32, 32, 32)


def test_a_written_config_reads_back():
    config = ResNetAttentionUNetConfig(depth=50, finest_width=8, gates_per_skip=2)
    assert ResNetAttentionUNetConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"depth": 20}, "depth"),
        ({"widths": (16, 32, 64)}, "widths: a ResNet of depth 18 fixes them"),
        ({"pool_size": (2, 2, 1)}, "pool_size: a ResNet halves every axis"),
        ({"finest_width": 0}, "finest_width"),
    ],
)
def test_what_a_resnet_does_not_have_is_refused(fields, what):
    with pytest.raises(ValidationError, match=what):
        ResNetAttentionUNetConfig(**fields)


def test_a_size_that_cannot_be_halved_five_times_is_refused():
    with pytest.raises(ValueError, match=r"multiple of 32, got \(48, 64\)"):
        drawn()(torch.zeros(1, 1, 48, 64))


def test_all_skips_below_the_finest_are_gated_and_shown():
    # in training mode: with running statistics not yet run, a residual network's features explode
    maps = drawn().train().attention_maps(torch.randn(2, 1, 64, 64))
    assert list(maps) == [1, 2, 3, 4]
    for alpha in maps.values():
        assert alpha.shape == (2, 1, 64, 64)
        assert 0 < alpha.min() <= alpha.max() < 1


def test_gradients_reach_every_parameter():
    network = drawn().train()
    network(torch.randn(2, 1, 64, 64)).square().sum().backward()
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]


def test_checkpointing_gives_the_same_gradients():
    image = torch.randn(2, 1, 64, 64)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(5)
        network = drawn(checkpointing=checkpointing).train()
        network(image).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-7), name
