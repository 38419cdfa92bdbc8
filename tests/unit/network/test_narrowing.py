from __future__ import annotations

import pytest
import torch

from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.narrowing import keep_classes
from ct_attn.network.unet import UNetConfig

WIDTHS = (2, 3, 4, 5)


@pytest.mark.parametrize("deep_supervision", ["fused", "per_scale", "none"])
@pytest.mark.parametrize("kind", [UNetConfig, AttentionUNetConfig])
def test_the_logits_that_stay_are_those_of_the_whole_network(kind, deep_supervision):
    config = kind(widths=WIDTHS, deep_supervision=deep_supervision)
    whole = build_network(config, in_channels=1, n_classes=4).eval()
    narrow = build_network(config, in_channels=1, n_classes=2).eval()
    for name, parameter in whole.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    narrow.load_state_dict(keep_classes(whole.state_dict(), (0, 1)))
    image = torch.randn(2, 1, 16, 16, 8)
    with torch.no_grad():
        assert torch.allclose(narrow(image), whole(image)[:, :2], atol=1e-4)


def test_classes_stay_in_the_order_asked_for():
    network = build_network(UNetConfig(widths=WIDTHS), in_channels=1, n_classes=4).eval()
    narrow = build_network(UNetConfig(widths=WIDTHS), in_channels=1, n_classes=3).eval()
    narrow.load_state_dict(keep_classes(network.state_dict(), (0, 3, 2)))
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.allclose(narrow(image), network(image)[:, [0, 3, 2]], atol=1e-4)


def test_weights_without_class_maps_are_refused():
    with pytest.raises(ValueError, match="no class maps"):
        keep_classes({"model.weight": torch.zeros(1)}, (0, 1))
