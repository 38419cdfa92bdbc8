"""What training compares with the labels, network by network."""

from __future__ import annotations

import pytest
import torch

from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.monai_attention_unet import MonaiAttentionUNetConfig
from ct_attn.network.unet import UNetConfig

NARROW = (2, 3, 4, 5, 6)
IMAGE = (2, 1, 16, 32, 16)


def drawn(config):
    return build_network(config, in_channels=1, n_classes=3).eval()


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(widths=NARROW),
        AttentionUNetConfig(widths=NARROW),
        AttentionUNetConfig(widths=NARROW, deep_supervision="none"),
        MonaiAttentionUNetConfig(widths=NARROW),
    ],
)
def test_by_default_the_prediction_alone_is_compared(config):
    network, image = drawn(config), torch.randn(IMAGE)
    supervised = network.supervised(image)
    (logits,) = supervised.logits
    assert torch.equal(logits, network(image))
    assert supervised.weights == (1.0,)
    assert supervised.extra is None


@pytest.mark.parametrize("kind", [UNetConfig, AttentionUNetConfig])
def test_per_scale_every_level_but_the_coarsest_counts_half_of_the_finer(kind):
    network, image = drawn(kind(widths=NARROW, deep_supervision="per_scale")), torch.randn(IMAGE)
    supervised = network.supervised(image)
    assert [tuple(logits.shape[2:]) for logits in supervised.logits] == [(16, 32, 16), (8, 16, 8), (4, 8, 4)]
    assert supervised.weights == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert torch.equal(supervised.logits[0], network(image))
    assert supervised.prediction is supervised.logits[0]


def test_per_scale_has_a_head_per_scale_and_nothing_to_fuse():
    network = build_network(UNetConfig(deep_supervision="per_scale"), in_channels=1, n_classes=4)
    assert sum(p.numel() for head in network.heads for p in head.parameters()) == 68 + 132 + 260
    assert not list(network.fuse.parameters())


def test_two_levels_leave_one_scale():
    network = drawn(UNetConfig(widths=(2, 3), deep_supervision="per_scale"))
    assert network.supervised(torch.randn(IMAGE)).weights == (1.0,)


def test_per_scale_gradients_reach_every_parameter():
    network = drawn(AttentionUNetConfig(widths=NARROW, deep_supervision="per_scale")).train()
    supervised = network.supervised(torch.randn(2, 1, 16, 16, 32))
    sum(logits.square().sum() for logits in supervised.logits).backward()
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]
