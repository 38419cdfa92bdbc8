from __future__ import annotations

import pytest
import torch

from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.folding import folded
from ct_attn.network.monai_attention_unet import MonaiAttentionUNetConfig
from ct_attn.network.resnet_unet import ResNetAttentionUNetConfig
from ct_attn.network.unet import UNetConfig

NARROW = (2, 3, 4)


def trained(config):
    """A network whose statistics and weights are not those it was drawn with."""
    network = build_network(config, in_channels=1, n_classes=3).double().train()
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    for _ in range(3):
        network(image(config))
    return network.eval()


def image(config):
    return torch.randn(2, 1, *(32, 64, 32)[: config.dims], dtype=torch.float64)


def norms(network):
    return [
        module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    ]


@pytest.mark.parametrize(
    ("config", "left"),
    [
        (UNetConfig(widths=NARROW), 0),
        (AttentionUNetConfig(widths=NARROW, gates_per_skip=2, highway=True, upsampling="transposed"), 0),
        (AttentionUNetConfig(widths=NARROW, activation="leaky_relu", dims=2), 0),
        (MonaiAttentionUNetConfig(widths=(2, 4, 6)), "all"),
        (ResNetAttentionUNetConfig(dims=2, finest_width=4), 17),
    ],
)
def test_a_folded_network_predicts_the_same(config, left):
    network = trained(config)
    quicker, x = folded(network), image(config)
    assert torch.allclose(quicker(x), network(x), rtol=1e-9, atol=1e-9)
    assert not quicker.training
    assert len(norms(quicker)) == (len(norms(network)) if left == "all" else left)


def test_the_network_itself_stays_as_it_was():
    network = trained(UNetConfig(widths=NARROW)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded(network)
    assert network.training
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_what_depends_on_the_image_is_not_folded(norm):
    network = build_network(UNetConfig(widths=NARROW, norm=norm), in_channels=1, n_classes=2).double().eval()
    quicker, x = folded(network), image(UNetConfig())
    assert torch.equal(quicker(x), network(x))
    assert len(list(quicker.parameters())) == len(list(network.parameters()))


def test_attention_maps_are_the_same_too():
    config = AttentionUNetConfig(widths=NARROW)
    network, x = trained(config), image(config)
    for level, alpha in folded(network).attention_maps(x).items():
        assert torch.allclose(alpha, network.attention_maps(x)[level], atol=1e-10)
