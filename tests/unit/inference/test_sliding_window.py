from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference

from ct_attn.inference.sliding_window import sliding_window_logits
from ct_attn.inference.windows import gaussian_weight, window_starts

PATCH = (8, 6, 4)


def drawn(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def blurred(patch):
    """Three logits that depend on the voxel's surroundings and on where it lies in the patch."""
    kernel = torch.linspace(-1, 1, 3 * 27).reshape(3, 1, 3, 3, 3)
    ramp = torch.linspace(0, 1, patch.shape[2]).reshape(1, 1, -1, 1, 1)
    return torch.nn.functional.conv3d(patch, kernel, padding=1) + ramp


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
@pytest.mark.parametrize(
    "size",
    [
        (8, 6, 4),
        (16, 12, 8),
        (19, 13, 9),
        (9, 7, 5),
        (5, 13, 9),
        (20, 3, 9),
        (20, 13, 1),
        (3, 2, 1),
        (7, 5, 3),
    ],
)
def test_logits_are_those_of_monais_gaussian_sliding_window(size, overlap):
    image = drawn(*size)
    found = sliding_window_logits(blurred, image, patch_size=PATCH, overlap=overlap)
    expected = sliding_window_inference(
        image[None, None], PATCH, 1, blurred, overlap=overlap, mode="gaussian"
    )[0]
    assert found.shape == (3, *size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(19, 13, 9), (5, 13, 2)])
def test_a_network_that_returns_its_input_gives_the_image_back(size):
    image = drawn(*size)
    found = sliding_window_logits(
        lambda patch: torch.cat([patch, -patch], dim=1), image, patch_size=PATCH, overlap=0.5
    )
    torch.testing.assert_close(found, torch.stack([image, -image]), rtol=0, atol=1e-6)


def test_a_small_volume_is_padded_with_zeros_on_both_sides():
    seen = []
    image = 1 + drawn(3, 6, 1)

    def watch(patch):
        seen.append(patch.clone())
        return patch

    sliding_window_logits(watch, image, patch_size=PATCH, overlap=0.5)
    (patch,) = seen
    assert patch.shape == (1, 1, *PATCH)
    assert torch.equal(patch[0, 0, 2:5, :, 1:2], image)
    assert torch.count_nonzero(patch) == image.numel()


@given(
    size=st.tuples(*[st.integers(0, 40)] * 3),
    patch_size=st.tuples(*[st.integers(1, 12)] * 3),
    overlap=st.floats(0, 0.99),
)
def test_windows_lie_inside_and_cover_everything(size, patch_size, overlap):
    size = tuple(side + more for side, more in zip(patch_size, size, strict=True))
    starts = list(window_starts(size, patch_size, overlap))
    assume(len(starts) < 5000)
    assert len(set(starts)) == len(starts)
    assert starts == sorted(starts)
    for axis, (length, side) in enumerate(zip(size, patch_size, strict=True)):
        begins = sorted({start[axis] for start in starts})
        assert begins[0] == 0
        assert begins[-1] == length - side
        steps = [after - before for before, after in pairwise(begins)]
        assert all(1 <= step <= max(1, side * (1 - overlap)) for step in steps)
    per_axis = [len({start[axis] for start in starts}) for axis in range(3)]
    assert len(starts) == per_axis[0] * per_axis[1] * per_axis[2]


def test_windows_by_hand():
    """20 voxels, patches of 8, half overlapping: 0, 4, 8 and the last moved back to 12."""
    assert [start[0] for start in window_starts((19, 8, 8), (8, 8, 8), 0.5)] == [0, 4, 8, 11]
    assert list(window_starts((8, 8, 10), (8, 8, 8), 0.5)) == [(0, 0, 0), (0, 0, 2)]


@pytest.mark.parametrize("patch_size", [(8, 6, 4), (96, 96, 64), (7, 1, 16)])
def test_the_weight_is_monais_importance_map(patch_size):
    expected = compute_importance_map(patch_size, mode="gaussian", sigma_scale=0.125, dtype=torch.float32)
    weight = torch.from_numpy(gaussian_weight(patch_size))
    assert weight.min() >= 1e-3
    torch.testing.assert_close(weight, expected.clamp(min=1e-3), rtol=1e-5, atol=1e-6)


def test_progress_counts_every_window_once():
    heard = []
    sliding_window_logits(
        blurred, drawn(19, 13, 4), patch_size=PATCH, overlap=0.5, on_window=lambda *at: heard.append(at)
    )
    total = 4 * 4 * 1
    assert heard == [(done, total) for done in range(1, total + 1)]


def test_logits_are_float32_whatever_the_network_computes_in():
    found = sliding_window_logits(
        lambda patch: blurred(patch).to(torch.bfloat16), drawn(9, 7, 5), patch_size=PATCH, overlap=0.5
    )
    assert found.dtype == torch.float32
