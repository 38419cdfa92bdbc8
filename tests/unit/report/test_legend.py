"""The colours, as eyes see them that lack one kind of cone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ct_attn.report.legend import ONLY_PREDICTED, ONLY_TRUTH, PALETTE, colour_of

# Machado, Oliveira and Fernandes 2009 (IEEE TVCG 15:1291), severity 1, on linear RGB.
SEEN_BY = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour: str, eyes: str = "all cones") -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour as ``eyes`` see it."""
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(SEEN_BY[eyes] @ linear, 0, 1) / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: str, other: str, eyes: str) -> float:
    """The colour difference of 1976; about 2 is just seen where both lie side by side."""
    return float(np.linalg.norm(lab(one, eyes) - lab(other, eyes)))


def test_the_simulation_takes_red_and_green_for_one_and_leaves_white_white():
    red, green = "#b04020", "#607010"
    assert apart(red, green, "deuteranopia") < 0.5 * apart(red, green, "all cones")
    for eyes in SEEN_BY:
        assert np.allclose(lab("#ffffff", eyes), [100, 0, 0], atol=0.1)


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_organs_and_errors_are_told_apart_by_all_eyes(eyes):
    for one, other in [*combinations(PALETTE, 2), (ONLY_TRUTH, ONLY_PREDICTED)]:
        assert apart(one, other, eyes) > 15, (one, other)


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_no_organ_is_as_dark_as_air_or_as_bright_as_bone(eyes):
    for colour in (*PALETTE, ONLY_TRUTH, ONLY_PREDICTED):
        assert min(apart(colour, grey, eyes) for grey in ("#000000", "#ffffff")) > 30, colour


def test_the_four_organs_have_a_colour_each():
    assert len(set(colour_of(["pancreas", "spleen", "left_kidney", "right_kidney"]).values())) == 4
