"""A case small enough for a page: where it lies, what it holds, how large it gets."""

from __future__ import annotations

import gzip
from base64 import b64decode
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Image

from ct_attn.labels import PAPER_SCHEME
from ct_attn.report.reduced import box_of_organs, reduced_case
from ct_attn.volume import Grid, Mask, Volume

TILTED = np.array([[0.0, -0.8, 0, 40], [0.7, 0, 0.1, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])


def unpacked(text):
    return Nifti1Image.from_bytes(gzip.decompress(b64decode(text)))


def case(shape, *, max_voxels, affine=TILTED, spleen=(slice(None),) * 3):
    grid = Grid(shape=shape, affine=affine)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[spleen] = 2
    hu = np.random.default_rng(0).normal(40, 30, shape).astype(np.int16)
    mask = Mask(labels=labels, grid=grid)
    volume = Volume(hu=hu, grid=grid)
    return volume, mask, reduced_case(volume, mask, mask, scheme=PAPER_SCHEME, max_voxels=max_voxels)


@given(
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    max_voxels=st.sampled_from([1, 50, 700, 10**6]),
)
def test_it_never_holds_more_than_it_may_and_masks_fit_the_scan(shape, max_voxels):
    _, _, reduced = case(shape, max_voxels=max_voxels)
    scan, truth = unpacked(reduced.scan), unpacked(reduced.truth)
    assert prod(scan.shape) <= max_voxels
    assert truth.shape == scan.shape
    np.testing.assert_array_equal(truth.affine, scan.affine)


def test_what_fits_is_kept_as_it_is_but_for_steps_of_4_hu():
    volume, mask, reduced = case((12, 10, 8), max_voxels=960)
    scan = unpacked(reduced.scan)
    np.testing.assert_allclose(scan.affine, volume.grid.affine, atol=1e-5)
    assert np.abs(np.asarray(scan.dataobj) - volume.hu).max() <= 2
    np.testing.assert_array_equal(np.asarray(unpacked(reduced.predicted).dataobj), mask.labels)


def test_an_organ_stays_where_it_is_in_the_patient():
    """The centre of mass in mm, in a grid that is turned, sheared and three times as fine in plane."""
    shape, spleen = (60, 66, 12), (slice(20, 41), slice(9, 30), slice(3, 9))
    _, mask, reduced = case(shape, max_voxels=9_000, spleen=spleen)
    small = unpacked(reduced.truth)
    assert prod(small.shape) <= 9_000 < prod(shape)
    assert max(reduced.step_mm) < 2 * max(mask.grid.spacing_mm)
    here = small.affine[:3, :3] @ np.argwhere(np.asarray(small.dataobj)).mean(axis=0) + small.affine[:3, 3]
    there = mask.grid.to_mm(np.argwhere(mask.labels).mean(axis=0))
    # Its faces move to those of the nearest blocks.
    assert np.linalg.norm(here - there) < np.linalg.norm(reduced.step_mm) / 2


def test_the_same_case_gives_the_same_bytes():
    assert case((12, 10, 8), max_voxels=100)[2] == case((12, 10, 8), max_voxels=100)[2]


def test_masks_on_another_grid_are_refused():
    volume, _, _ = case((4, 4, 4), max_voxels=64)
    other = Mask(
        labels=np.zeros((4, 4, 4), dtype=np.uint8), grid=Grid(shape=(4, 4, 4), affine=np.diag([9.0, 1, 1, 1]))
    )
    with pytest.raises(ValueError, match="one grid"):
        reduced_case(volume, other, other, scheme=PAPER_SCHEME, max_voxels=64)


def test_the_box_of_nothing_is_everything_and_a_margin_stops_at_the_edge():
    empty, full = np.zeros((5, 6, 7), dtype=np.uint8), np.zeros((5, 6, 7), dtype=np.uint8)
    full[0, 3, 5] = 1
    assert box_of_organs([empty], (1, 1, 1), 2) == (slice(0, 5), slice(0, 6), slice(0, 7))
    assert box_of_organs([empty, full], (1, 1, 1), 2) == (slice(0, 3), slice(1, 6), slice(3, 7))
