from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from ct_attn.network.build import build_network
from ct_attn.network.monai_attention_unet import MonaiAttentionUNetConfig


def test_parameter_count_of_the_peer():
    network = build_network(MonaiAttentionUNetConfig(), in_channels=1, n_classes=4)
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_909_164


@pytest.mark.parametrize(("dims", "size"), [(3, (8, 16, 24)), (2, (16, 8))])
def test_logits_have_the_images_size(dims, size):
    config = MonaiAttentionUNetConfig(widths=(2, 4, 6, 8), dims=dims)
    network = build_network(config, in_channels=2, n_classes=3).eval()
    assert network.size_multiple == config.size_multiple == (8,) * dims
    assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)


def test_a_size_its_levels_cannot_halve_is_refused():
    network = build_network(MonaiAttentionUNetConfig(widths=(2, 4, 6)), in_channels=1, n_classes=2)
    with pytest.raises(ValueError, match="multiple of 4, got"):
        network(torch.zeros(1, 1, 8, 8, 10))


@pytest.mark.parametrize("fields", [{"widths": (4,)}, {"norm": "batch"}, {"kernel_size": 3}])
def test_what_monais_network_does_not_offer_is_refused(fields):
    with pytest.raises(ValidationError):
        MonaiAttentionUNetConfig(**fields)


def test_monai_is_imported_only_for_it():
    code = "import sys, ct_attn.network.build; print('monai.networks' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
