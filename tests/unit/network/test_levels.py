from __future__ import annotations

import pytest
from pydantic import ValidationError

from ct_attn.network.levels import require_multiple
from ct_attn.network.unet import UNetConfig

THREE = (4, 6, 8)


@pytest.mark.parametrize(
    ("given", "kernels"),
    [
        (3, ((3, 3, 3),) * 3),
        ((3, 3, 1), ((3, 3, 1),) * 3),
        (((3, 3, 1), (3, 3, 3), (5, 5, 3)), ((3, 3, 1), (3, 3, 3), (5, 5, 3))),
    ],
)
def test_kernels_are_written_once_per_axis_or_per_level(given, kernels):
    assert UNetConfig(widths=THREE, kernel_size=given).kernel_sizes == kernels


@pytest.mark.parametrize(
    ("given", "multiple"),
    [
        (2, (4, 4, 4)),
        ((2, 2, 1), (4, 4, 1)),
        (((2, 2, 1), (2, 2, 2)), (4, 4, 2)),
        (((3, 2, 1),) * 2, (9, 4, 1)),
    ],
)
def test_the_multiple_is_the_product_of_the_poolings_along_each_axis(given, multiple):
    assert UNetConfig(widths=THREE, pool_size=given).size_multiple == multiple


def test_slices_have_two_axes():
    config = UNetConfig(widths=THREE, dims=2, kernel_size=((3, 1), (3, 3), (3, 3)))
    assert config.kernel_sizes == ((3, 1), (3, 3), (3, 3))
    assert config.size_multiple == (4, 4)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"kernel_size": (3, 3)}, "kernel_size: expected one number, 3 numbers .* or 3 lists of 3, got"),
        ({"kernel_size": ((3, 3, 3), (3, 3, 3))}, "kernel_size: expected"),
        ({"kernel_size": ((3, 3, 3), (3, 3, 3), (3, 3))}, "kernel_size: expected"),
        ({"kernel_size": ()}, "kernel_size: expected"),
        ({"kernel_size": 2}, "every side must be odd"),
        ({"kernel_size": (3, 3, 4)}, "every side must be odd"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"pool_size": ((2, 2, 2),) * 3}, "pool_size: expected one number, 3 numbers .* or 2 lists of 3"),
        ({"pool_size": (2, 2, 0)}, "pool_size"),
        ({"pool_size": (2, 2), "dims": 3}, "pool_size: expected"),
        ({"kernel_size": (3, 3, 1), "dims": 2}, "kernel_size: expected"),
        ({"dims": 4}, "dims"),
        ({"norm": "layer"}, "norm"),
        ({"activation": "gelu"}, "activation"),
        ({"upsampling": "nearest"}, "upsampling"),
        ({"deep_supervision": "some"}, "deep_supervision"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_config_is_made(fields, what):
    with pytest.raises(ValidationError, match=what):
        UNetConfig(widths=THREE, **fields)


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ((12, 8, 3), r"multiple of \(8, 8, 2\), got \(12, 8, 3\)"),
        ((8, 8, 3), r"multiple of \(8, 8, 2\)"),
        ((8, 8), "a patch must have 3 sides"),
    ],
)
def test_a_size_is_held_against_the_multiple_of_every_axis(size, what):
    require_multiple((8, 16, 6), (8, 8, 2))
    with pytest.raises(ValueError, match=what):
        require_multiple(size, (8, 8, 2))
