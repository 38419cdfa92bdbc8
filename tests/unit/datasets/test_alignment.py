from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.datasets.alignment import (
    ALL_FLIPS,
    AS_STATED,
    Evidence,
    Flip,
    flipped,
    parse_flip,
    turn_to,
    weigh,
    winner,
)
from ct_attn.labels import DISK_SCHEME
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume
from tests.downloads import PANCREAS, patient

ORIENTATIONS = ("RAS", "LPS", "PIR", "SAL")


def evidence(flip=AS_STATED, *, edge=60.0, share=0.9):
    return Evidence(flip=flip, mean_hu=80, soft_tissue_share=share, edge_contrast_hu=edge)


def test_there_are_eight_flips_and_each_is_read_as_it_is_written():
    assert len({str(flip) for flip in ALL_FLIPS}) == 8
    assert [parse_flip(str(flip)) for flip in ALL_FLIPS] == list(ALL_FLIPS)
    assert str(Flip(left_right=True, up_down=True)) == "left-right+up-down"


@pytest.mark.parametrize("text", ["", "up", "none+up-down", "left_right"])
def test_what_is_no_flip_is_refused(text):
    with pytest.raises(ValueError, match="is not none or some of"):
        parse_flip(text)


@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS), st.integers(0, 999))
def test_turning_moves_nothing_in_the_patient(stored, wanted, seed):
    rng = np.random.default_rng(seed)
    axes = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axes[letter] for letter in stored], axis=1) * rng.uniform(0.5, 3, 3)
    affine[:3, 3] = rng.normal(size=3)
    mask = Mask(
        labels=rng.integers(0, 5, (3, 4, 5), dtype=np.uint8), grid=Grid(shape=(3, 4, 5), affine=affine)
    )
    turned = turn_to(mask, wanted)
    assert turned.grid.orientation == wanted
    for voxel in np.argwhere(turned.labels > -1)[::7]:
        was = mask.grid.to_voxels(turned.grid.to_mm(voxel)).round().astype(int)
        assert turned.labels[tuple(voxel)] == mask.labels[tuple(was)]


@given(st.sampled_from(ALL_FLIPS), st.sampled_from(ORIENTATIONS))
def test_a_flip_is_its_own_inverse_and_goes_by_the_patients_axes(flip, orientation):
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    once = flipped(labels, flip, orientation)
    assert np.array_equal(flipped(once, flip, orientation), labels)
    axis = next(place for place, letter in enumerate(orientation) if letter in "RL")
    expected = np.flip(labels, axis)
    assert np.array_equal(flipped(labels, Flip(left_right=True), orientation), expected)


@pytest.mark.parametrize("flip", ALL_FLIPS, ids=str)
@pytest.mark.parametrize("organs", [(PANCREAS,), (1, 2, 3, 4)], ids=["pancreas", "all"])
def test_the_flip_that_was_made_is_found(flip, organs):
    volume, mask = patient(4)
    labels = np.where(np.isin(mask.labels, organs), mask.labels, 0).astype(np.uint8)
    best = winner(weigh(volume, flipped(labels, flip, "LPS"), DISK_SCHEME))
    assert best is not None
    assert best.flip == flip
    assert best.soft_tissue_share > 0.9


def test_a_pancreas_in_the_wrong_place_is_hardly_ever_taken_for_right():
    rng = np.random.default_rng(5)
    taken = 0
    for _ in range(40):
        host, guest = rng.choice([1, 2, 4, 5, 6], 2, replace=False)
        volume = patient(int(host))[0]
        points = np.argwhere(patient(int(guest))[1].labels == PANCREAS)
        points -= points.min(axis=0)
        room = np.array(volume.grid.shape) - points.max(axis=0)
        if room.min() < 1:
            continue
        labels = np.zeros(volume.grid.shape, dtype=np.uint8)
        labels[tuple((points + rng.integers(0, room)).T)] = PANCREAS
        taken += winner(weigh(volume, labels, DISK_SCHEME)) is not None
    assert taken <= 1


def test_a_real_scan_speaks_for_its_label_under_every_flip(shared_data):
    folder = shared_data / "abdomen_ct_3mm"
    volume = nifti.read_volume(folder / "ct.nii.gz")
    mask, _ = nifti.read_mask(folder / "label.nii.gz")
    pancreas = np.where(mask.labels == PANCREAS, mask.labels, 0).astype(np.uint8)
    for flip in ALL_FLIPS:
        best = winner(weigh(volume, flipped(pancreas, flip, volume.grid.orientation), DISK_SCHEME))
        assert best is not None
        assert best.flip == flip


def test_the_numbers_of_a_cube_of_known_hu_in_fat():
    hu = np.full((20, 20, 20), -90, dtype=np.int16)
    labels = np.zeros(hu.shape, dtype=np.uint8)
    hu[2:8, 7:13, 7:13] = 60
    labels[2:8, 7:13, 7:13] = PANCREAS
    volume = Volume(hu=hu, grid=Grid(shape=hu.shape, affine=np.eye(4)))
    stated, mirrored = weigh(volume, labels, DISK_SCHEME, [AS_STATED, Flip(left_right=True)])
    assert (stated.mean_hu, stated.soft_tissue_share, stated.edge_contrast_hu) == (60, 1, 150)
    assert (mirrored.mean_hu, mirrored.soft_tissue_share, mirrored.edge_contrast_hu) == (-90, 0, 0)
    assert stated.is_plausible
    assert not mirrored.is_plausible


def test_only_a_plausible_winner_far_ahead_is_taken():
    other = Flip(up_down=True)
    assert winner([evidence(), evidence(other, edge=10)]) == evidence()
    assert winner([evidence(), evidence(other, edge=40)]) is None
    assert winner([evidence(edge=15), evidence(other, edge=0)]) is None
    assert winner([evidence(share=0.5), evidence(other, edge=0)]) is None


def test_what_cannot_be_weighed_is_refused():
    volume, mask = patient(1)
    with pytest.raises(ValueError, match="nothing is labelled"):
        weigh(volume, np.zeros_like(mask.labels), DISK_SCHEME)
    with pytest.raises(ValueError, match="do not fit"):
        weigh(volume, mask.labels[1:], DISK_SCHEME)
