from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ct_attn.network.blocks import ConvNormReLU, DoubleConv, initialise, resample


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_block_keeps_the_grid_and_ends_in_relu(kernel_size):
    block = ConvNormReLU(2, 5, kernel_size=kernel_size)
    assert [type(part) for part in block] == [nn.Conv3d, nn.BatchNorm3d, nn.ReLU]
    out = block(torch.randn(2, 2, 5, 6, 7))
    assert out.shape == (2, 5, 5, 6, 7)
    assert out.min() == 0
    assert out.max() > 0


@pytest.mark.parametrize(
    ("channels", "parameters"),
    # 27 x in x out weights, out biases and 2 x out of the normalisation, twice
    [((1, 16), 7_440), ((16, 32), 41_664), ((128, 256), 2_655_744)],
)
def test_parameter_counts_of_double_convolutions(channels, parameters):
    assert sum(parameter.numel() for parameter in DoubleConv(*channels).parameters()) == parameters


def test_corners_do_not_line_up_when_a_map_is_resampled():
    line = torch.tensor([0.0, 1.0]).reshape(1, 1, 2, 1, 1)
    assert resample(line, (4, 1, 1)).flatten().tolist() == [0, 0.25, 0.75, 1]
    assert resample(line, (4, 2, 3)).shape == (1, 1, 4, 2, 3)


def test_resampling_to_the_same_size_changes_nothing():
    x = torch.randn(1, 2, 3, 4, 5)
    assert torch.equal(resample(x, (3, 4, 5)), x)


def test_initial_weights_have_the_released_distributions():
    block = nn.Sequential(nn.Conv3d(32, 48, 3), nn.BatchNorm3d(20_000), nn.Conv3d(200, 8, 1))
    block[1].bias.data.fill_(7)
    initialise(block)
    for convolution, fan_in in ((block[0], 32 * 27), (block[2], 200)):
        weight = convolution.weight.detach().numpy()
        standard_deviation = np.sqrt(2 / fan_in)
        assert weight.std() == pytest.approx(standard_deviation, rel=0.05)
        assert weight.mean() == pytest.approx(0, abs=0.1 * standard_deviation)
        assert np.abs(weight).max() > 2.5 * standard_deviation  # normal: a uniform draw ends at 1.73
    assert block[1].weight.mean().item() == pytest.approx(1, abs=1e-3)
    assert block[1].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block[1].bias.any()
