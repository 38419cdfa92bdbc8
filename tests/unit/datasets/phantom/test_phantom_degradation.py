"""Scans made worse: by how much, where, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ct_attn.datasets.phantom.degradation import UNCHANGED, Degradation, degrade, parse_degradation
from ct_attn.volume import Grid, Mask, Volume

SHAPE = (96, 80, 12)
NOISE_HU = 10.0


def seed():
    return np.random.SeedSequence(5)


def flat(hu=40, shape=SHAPE, spacing_mm=(0.8, 0.8, 2.0)):
    """A scan of one value but for air around, and labels that say which slice a voxel is in."""
    volume = np.full(shape, hu, dtype=np.int16)
    volume[:6], volume[-6:], volume[:, :6], volume[:, -6:] = -1000, -1000, -1000, -1000
    labels = np.broadcast_to(np.arange(shape[2], dtype=np.uint8), shape).copy()
    grid = Grid(shape=shape, affine=np.diag([*spacing_mm, 1.0]))
    return Volume(hu=volume, grid=grid), Mask(labels=labels, grid=grid)


def made_worse(how, scan=None):
    volume, mask = scan or flat()
    return degrade(volume, mask, how, seed(), noise_hu=NOISE_HU)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_noise_is_as_strong_as_asked_together_with_what_was_there(factor):
    before, mask = flat(0, spacing_mm=(0.8, 0.8, 2))
    after, labels = made_worse(Degradation(noise=factor), (before, mask))
    added = (after.hu.astype(float) - before.hu)[8:-8, 8:-8]
    assert np.hypot(NOISE_HU, added.std()) == pytest.approx(factor * NOISE_HU, rel=0.03)
    assert abs(added.mean()) < 1
    assert np.array_equal(labels.labels, mask.labels)


def test_noise_is_coloured_in_plane_and_new_in_every_slice():
    before, mask = flat(0)
    added = (made_worse(Degradation(noise=4), (before, mask))[0].hu.astype(float) - before.hu)[8:-8, 8:-8]
    spectrum = np.abs(np.fft.fft2(added, axes=(0, 1))).mean(axis=2)
    low, middle = spectrum[1:3, 1:3].mean(), spectrum[10:16, 10:14].mean()
    assert low < 0.6 * middle  # power rises with frequency
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.05


def test_blur_softens_an_edge_by_its_width_in_mm():
    volume, mask = flat(0, shape=(60, 60, 20), spacing_mm=(1.0, 1.0, 2.0))
    volume.hu[...] = 0
    volume.hu[30:] = 100
    after, _ = made_worse(Degradation(blur_mm=2.0), (volume, mask))
    profile = after.hu[20:40, 30, 10].astype(float)
    steps = np.diff(profile) / 100
    at = np.arange(len(steps))
    mean = (at * steps).sum()
    assert np.sqrt(((at - mean) ** 2 * steps).sum()) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("slices", [2, 3, 4])
def test_thick_slices_are_means_and_keep_the_place_of_their_middle(slices):
    ramp, mask = flat()
    ramp.hu[...] = np.arange(SHAPE[2]) * 10
    after, labels = made_worse(Degradation(slices=slices), (ramp, mask))
    assert after.grid.spacing_mm[2] == pytest.approx(2.0 * slices)
    assert after.grid.is_same_as(labels.grid)
    assert (after.hu == labels.labels.astype(int) * 10).all()  # the mean of a ramp is its middle
    slices_mm = after.grid.to_mm(np.array([[0, 0, k] for k in range(after.grid.shape[2])]))[:, 2]
    assert slices_mm == pytest.approx(labels.labels[0, 0] * 2.0)


def test_a_smaller_field_of_view_is_the_same_scan_in_its_middle():
    volume, mask = flat()
    volume.hu[...] = np.random.default_rng(0).integers(-900, 900, SHAPE)
    after, labels = made_worse(Degradation(field_of_view=0.5), (volume, mask))
    assert after.hu.shape == (48, 40, 12)
    first = volume.grid.to_voxels(after.grid.to_mm(np.zeros(3))).round().astype(int)
    i, j = first[:2]
    assert np.array_equal(after.hu, volume.hu[i : i + 48, j : j + 40])
    assert labels.labels.shape == after.hu.shape


def test_metal_streaks_have_their_strength_and_join_the_rods():
    before, mask = flat(0, shape=(200, 160, 8), spacing_mm=(1.5, 1.5, 4.0))
    after, labels = made_worse(Degradation(streaks=60), (before, mask))
    change = after.hu.astype(float) - before.hu
    metal = after.hu == 3071
    assert metal.any()
    rods = np.argwhere(metal[..., 4])
    assert rods[:, 1].max() < 80  # this grid runs to the front: the rods are at the back
    middle = rods.mean(axis=0).round().astype(int)
    between = change[middle[0] - 3 : middle[0] + 4, middle[1], 4]
    above = change[middle[0] - 3 : middle[0] + 4, middle[1] + 25, 4]
    assert between.mean() < above.mean() - 20  # dark between two rods
    far = np.abs(change[:, -40:, 4]).mean()
    near = np.abs(change[~metal[..., 4].any(axis=1)][:, max(0, middle[1] - 20) : middle[1] + 20, 4]).mean()
    assert near > 2 * far
    assert np.array_equal(labels.labels, mask.labels)


def test_the_same_seed_gives_the_same_bytes_in_any_orientation(coarse_cases):
    case = coarse_cases[1]
    how = Degradation(noise=2, blur_mm=1, streaks=40, slices=2, field_of_view=0.8)
    first, again = (
        degrade(case.volume, case.mask, how, seed(), noise_hu=case.facts.noise_hu) for _ in range(2)
    )
    assert np.array_equal(first[0].hu, again[0].hu)
    assert np.array_equal(first[1].labels, again[1].labels)
    assert first[0].grid.is_same_as(first[1].grid)
    other = degrade(case.volume, case.mask, how, np.random.SeedSequence(6), noise_hu=case.facts.noise_hu)
    assert not np.array_equal(first[0].hu, other[0].hu)


def test_nothing_asked_is_nothing_done(coarse_cases):
    case = coarse_cases[0]
    volume, mask = degrade(case.volume, case.mask, UNCHANGED, seed(), noise_hu=1)
    assert volume is case.volume
    assert mask is case.mask


def test_padding_stays_padding():
    volume, mask = flat()
    volume.hu[:3] = -2048
    after, _ = made_worse(Degradation(noise=4, blur_mm=2), (volume, mask))
    assert (after.hu[:3] == -2048).all()
    assert after.hu[3:].min() >= -1024


def test_what_is_asked_is_read():
    assert parse_degradation("noise=2, slices=3") == Degradation(noise=2, slices=3)
    assert parse_degradation("") == UNCHANGED


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("fog=1", "unknown 'fog'; known are noise"),
        ("noise=0.5", "at least 1"),
        ("noise", "could not convert"),
        ("slices=1.5", "invalid literal"),
        ("field_of_view=0", "above 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(text, what):
    with pytest.raises(ValueError, match=what):
        parse_degradation(text)
