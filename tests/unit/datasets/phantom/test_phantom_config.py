from __future__ import annotations

import pytest

from ct_attn.datasets.phantom import PhantomConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"in_plane_spacing_mm": (1.0, 0.6)},
        {"in_plane_spacing_mm": (-1.0, 0.6)},
        {"slice_spacing_mm": (0.0, 5.0)},
        {"slice_spacing_mm": (float("nan"), 5.0)},
        {"field_of_view_mm": (300.0, float("inf"))},
        {"noise_hu": (-1.0, 5.0)},
        {"blur_mm": (0.9, 0.4)},
        {"body_scale": (0.0, 1.0)},
        {"padding_probability": 1.1},
        {"oblique_probability": -0.1},
        {"orientations": ()},
        {"orientations": ("RAR",)},
        {"orientations": ("ras",)},
    ],
)
def test_what_cannot_be_drawn_from_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).rstrip("s")[:11]):
        PhantomConfig(**wrong)


def test_noiseless_and_unblurred_are_allowed():
    assert PhantomConfig(noise_hu=(0.0, 0.0), blur_mm=(0.0, 0.0)).noise_hu == (0.0, 0.0)
