"""What can't be HU is refused with its likely cause; a CT is not, however it was cropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.datasets.phantom import PhantomConfig, draw_case
from ct_attn.errors import UserError
from ct_attn.scan_io.hounsfield import as_hounsfield, likely_cause
from ct_attn.scan_io.options import ReadingOptions
from ct_attn.scan_io.scan import read_scan
from ct_attn.scan_io.values import StoredVolume
from ct_attn.volume import Grid, Volume
from tests.unit.scan_io.body import body_grid, hu_on

BODY = np.asfortranarray(hu_on(body_grid(size=(40, 36, 24), spacing_mm=(3.0, 3.0, 4.0))))
NOISE = np.random.default_rng(0).normal(0, 15, BODY.shape)
NOISY = np.rint(BODY + NOISE).astype(np.int16)


def checked(values: np.ndarray, *, eight_bit=False, rescale=None):
    hu = np.asfortranarray(values, dtype=np.int16 if values.dtype.kind in "iu" else np.float32).copy("F")
    stored = StoredVolume(
        volume=Volume(hu=hu, grid=Grid(shape=hu.shape, affine=np.eye(4))), eight_bit=eight_bit
    )
    notes = []
    volume = as_hounsfield(stored, Path("scan"), ReadingOptions(rescale=rescale), notes.append)
    return volume.hu, notes


WRONG = {
    "offset": (NOISY.clip(-1024) + 1024, "an offset"),
    "offset of a crop inside the body": ((NOISY + 1000)[14:26, 14:22], "an offset"),
    "offset, resampled with an overshoot": (
        np.where(np.arange(NOISY.size).reshape(NOISY.shape) % 5000 == 0, -7, NOISY.clip(-1024) + 1024),
        "an offset",
    ),
    "offset beside padding": (
        np.where(np.arange(40)[:, None, None] < 8, -2000, NOISY.clip(-1024) + 1024),
        "an offset",
    ),
    "scaled to 0-1": (((NOISY + 160) / 400).clip(0, 1), "scaled to 0-1"),
    "normalised": ((NOISY - NOISY.mean()) / NOISY.std(), "normalised"),
    "8-bit picture": (((NOISY + 160) / 400 * 255).clip(0, 255).round().astype(np.int16), "an 8-bit picture"),
    "label map": ((BODY > 0).astype(np.int16) * 3, "a label map"),
    "cut off at 0": (NOISY.clip(0), "nothing below 0"),
    "magnetic resonance": (np.abs(NOISE * 30) * (BODY > -200), "nothing below 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_are_no_hu_are_refused_with_their_likely_cause(name):
    values, cause = WRONG[name]
    with pytest.raises(UserError, match="--rescale") as caught:
        checked(values)
    assert cause in str(caught.value)


RIGHT = {
    "whole": NOISY,
    "float": BODY + NOISE,
    "padded": np.where(np.arange(40)[:, None, None] < 8, -2048, NOISY),
    "inside the body": NOISY[14:26, 14:22],
    "inside the body without fat": np.abs(NOISY[14:26, 14:22]) + 20,
    "bone": np.random.default_rng(1).uniform(150, 1500, (30, 30, 30)),
    "without noise": BODY,
    "one value": np.full((4, 4, 4), 40, np.int16),
    "air": np.full((4, 4, 4), -1000.0),
    "soft window": NOISY.clip(-160, 240),
    "water phantom": np.random.default_rng(2).normal(0, 4, (30, 30, 30)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_ct_is_taken(name):
    hu, _ = checked(RIGHT[name])
    assert np.array_equal(hu, np.maximum(RIGHT[name].astype(hu.dtype), -1024))


@given(seed=st.integers(0, 10_000), size=st.integers(4, 12), noise=st.floats(3, 60))
def test_a_crop_anywhere_in_a_body_is_taken(seed, size, noise):
    random = np.random.default_rng(seed)
    start = [random.integers(0, extent - size) for extent in BODY.shape]
    crop = BODY[tuple(slice(begin, begin + size) for begin in start)]
    assert likely_cause(np.rint(crop + random.normal(0, noise, crop.shape)).astype(np.int16)) == ""


@given(seed=st.integers(0, 10_000), offset=st.sampled_from([1000, 1024]), noise=st.floats(1, 40))
def test_an_offset_is_seen_whatever_the_noise(seed, offset, noise):
    hu = BODY + np.random.default_rng(seed).normal(0, noise, BODY.shape)
    assert "an offset" in likely_cause((np.rint(hu) + offset).clip(0).astype(np.int16))


def test_phantoms_are_taken():
    coarse = PhantomConfig(in_plane_spacing_mm=(4.0, 4.0), slice_spacing_mm=(5.0, 5.0))
    for seed in range(3):
        assert likely_cause(draw_case(seed, coarse).volume.hu) == ""


def test_numbers_kept_in_8_bits_are_refused_whatever_they_are():
    with pytest.raises(UserError, match="numbers kept in 8 bits"):
        checked(NOISY.clip(-128, 127), eight_bit=True)


@pytest.mark.parametrize("name", WRONG)
def test_rescale_overrides_and_says_so(name):
    values, _ = WRONG[name]
    hu, notes = checked(values, rescale=(2, -1000))
    assert hu == pytest.approx(np.maximum(values * 2.0 - 1000, -1024), rel=1e-4, abs=1e-3)
    assert notes[0] == "Its values were multiplied by 2 and -1000 added, as --rescale says."


def test_rescale_of_an_offset_gives_the_hu():
    hu, notes = checked(NOISY + 1024, rescale=(1, -1024))
    assert np.array_equal(hu, NOISY.clip(-1024))
    assert len(notes) == 1 + int((NOISY < -1024).any())


@pytest.mark.parametrize("padding", [-2048, -3024, -32768, -2000.5])
def test_padding_is_clipped_and_counted(padding):
    values = NOISY.clip(-1024).astype(float if padding % 1 else np.int16)
    values[:3, :2] = padding
    hu, notes = checked(values)
    assert (hu[:3, :2] == -1024).all()
    assert np.array_equal(hu[3:], values[3:].astype(hu.dtype))
    assert f"{3 * 2 * 24} voxels below -1024 HU, down to {padding:g}" in notes[0]


def test_real_scans_are_taken_and_a_label_map_is_not(shared_data):
    ct = read_scan(shared_data / "abdomen_ct_3mm" / "ct.nii.gz")
    assert read_scan(shared_data / "abdomen_ct_dicom").hu.min() == -1024
    with pytest.raises(UserError, match="label map"):
        read_scan(shared_data / "abdomen_ct_3mm" / "label.nii.gz")
    random = np.random.default_rng(0)
    for _ in range(200):
        size = random.integers(6, 40, 3)
        start = [random.integers(0, extent - edge) for extent, edge in zip(ct.hu.shape, size, strict=True)]
        crop = ct.hu[tuple(slice(begin, begin + edge) for begin, edge in zip(start, size, strict=True))]
        assert likely_cause(crop) == ""
    assert "an offset" in likely_cause(ct.hu + 1024)
