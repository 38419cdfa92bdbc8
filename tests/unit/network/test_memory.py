from __future__ import annotations

import pytest
import torch

from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.memory import activation_bytes_per_voxel, training_bytes
from ct_attn.network.segmenter import Segmenter
from ct_attn.network.unet import UNetConfig


def bytes_of(config, dtype=torch.float32):
    return activation_bytes_per_voxel(build_network(config, in_channels=1, n_classes=4), dtype=dtype)


class OneConvolution(Segmenter):
    """Keeps its input (1 channel) and, for the square, its output (3 channels): 16 bytes a voxel."""

    def __init__(self):
        super().__init__((4, 4, 4))
        self.convolution = torch.nn.Conv3d(1, 3, 1)

    def forward(self, image):
        return self.convolution(image).square()


def test_what_is_kept_is_counted_to_the_byte():
    assert activation_bytes_per_voxel(OneConvolution(), dtype=torch.float32) == 16


def test_wider_networks_keep_more_and_half_precision_and_checkpointing_less():
    narrow, wide = (bytes_of(UNetConfig(widths=widths)) for widths in ((4, 8, 16), (8, 16, 32)))
    assert wide > 1.5 * narrow
    assert bytes_of(UNetConfig(widths=(8, 16, 32)), torch.bfloat16) < 0.9 * wide
    assert bytes_of(AttentionUNetConfig(widths=(8, 16, 32), checkpointing=True)) < 0.5 * wide


def test_the_count_does_not_depend_on_the_patch():
    """Per voxel: half the widths of everything else stay the same when there is more of it."""
    network = build_network(UNetConfig(widths=(4, 8)), in_channels=1, n_classes=2)
    before = activation_bytes_per_voxel(network, dtype=torch.float32)
    network.size_multiple = (8, 8, 4)
    assert activation_bytes_per_voxel(network, dtype=torch.float32) == pytest.approx(before, rel=0.02)


def test_a_training_needs_weights_gradients_moments_and_activations():
    network = OneConvolution()
    assert training_bytes(network, bytes_per_voxel=10, n_voxels=1000) == pytest.approx(6 * 16 + 14_000)
