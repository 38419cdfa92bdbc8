from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig
from ct_attn.network.build import NetworkConfig, build_network
from ct_attn.network.monai_attention_unet import MonaiAttentionUNetConfig
from ct_attn.network.unet import UNet, UNetConfig

PARSED = TypeAdapter(NetworkConfig)


@pytest.mark.parametrize(
    ("config", "kind"),
    [(UNetConfig(widths=(2, 4, 6)), UNet), (AttentionUNetConfig(widths=(2, 4, 6)), AttentionUNet)],
)
def test_a_config_becomes_exactly_its_network(config, kind):
    network = build_network(config, in_channels=3, n_classes=5)
    assert type(network) is kind
    assert network.encoder[0][0][0].weight.shape[:2] == (2, 3)
    assert network.center[-1][0].weight.shape[0] == 6
    assert network.eval()(torch.zeros(1, 3, 8, 8, 8)).shape == (1, 5, 8, 8, 8)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(widths=(2, 4, 6)),
        AttentionUNetConfig(),
        AttentionUNetConfig(gated_skips=(0, 2), kernel_size=(3, 3, 1), pool_size=((2, 2, 1),) * 4),
        MonaiAttentionUNetConfig(widths=(2, 4)),
    ],
)
def test_a_written_config_reads_back(config):
    assert PARSED.validate_python(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "fields",
    [{"kind": "vnet"}, {"widths": [4, 8, 16]}, {"kind": "unet", "depth": 4}, {"kind": "unet", "widths": [4]}],
)
def test_a_config_of_no_known_network_is_refused(fields):
    with pytest.raises(ValidationError, match=r"kind|depth|widths"):
        PARSED.validate_python(fields)


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        UNetConfig().widths = (4, 8)
