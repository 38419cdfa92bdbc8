"""The scanner: where it samples, and what it does to the picture.

Slices are averaged over their thickness, blurred in plane, given correlated noise,
rounded to int16, and stored with axes in any order and direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ct_attn.datasets.phantom.anatomy import Anatomy
from ct_attn.datasets.phantom.config import USUAL_SLICE_SPACINGS_MM, PhantomConfig
from ct_attn.datasets.phantom.fields import Float32, Float64
from ct_attn.datasets.phantom.shapes import rotation
from ct_attn.volume import Grid, Mask, Volume

PADDING_HU = -2048
#: What a 12-bit scanner can hold.
HU_LIMITS = (-1024, 3071)

_AIR_HU = -1000.0
#: Slices thicker than this are averaged over sub-slices.
_THIN_MM = 2.0
#: Matrix of most scanners: smaller pixels come with a smaller field of view.
_USUAL_MATRIX = 512
#: Sample points painted at once, which bounds the memory.
_POINTS_AT_ONCE = 2_500_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScanSetup:
    """One drawn acquisition: sampling in scanner mm, image quality, and how it is stored.

    ``first_mm`` is the first sample (x, y, z), ``size`` how many there are along each.
    """

    first_mm: Float64
    size: tuple[int, int, int]
    pixel_mm: float
    slice_mm: float
    noise_hu: float
    noise_blur_mm: float
    blur_mm: float
    orientation: str
    turn: NDArray[np.float64]
    origin_mm: Float64
    padded: bool

    @property
    def is_oblique(self) -> bool:
        return not np.array_equal(self.turn, np.eye(3))

    def positions_mm(self, axis: int) -> Float64:
        step = self.slice_mm if axis == 2 else self.pixel_mm
        return np.asarray(self.first_mm[axis] + step * np.arange(self.size[axis]))


def draw_setup(rng: np.random.Generator, config: PhantomConfig, anatomy: Anatomy) -> ScanSetup:
    """A random acquisition of ``anatomy`` that holds its labelled organs where ``config`` leaves room."""
    skin_low, skin_high = anatomy.skin_box_mm()
    low, high = anatomy.labelled_box_mm()
    fov_mm = _field_of_view(rng, config, skin_high[0] - skin_low[0] - 16)
    pixel_mm = _pixel(rng, config, fov_mm)
    slice_mm = _slice_spacing(rng, config)
    coverage_mm = float(rng.uniform(*config.coverage_mm))
    slack_mm = max(0.0, coverage_mm - (high[2] - low[2])) / 2
    centre = (skin_low + skin_high) / 2 + rng.uniform(-6, 6, 3)
    centre[2] = (low[2] + high[2]) / 2 + float(rng.uniform(-slack_mm, slack_mm))
    side, count = max(2, round(fov_mm / pixel_mm)), max(2, round(coverage_mm / slice_mm))
    steps = np.array([pixel_mm, pixel_mm, slice_mm])
    size = (side, side, count)
    return ScanSetup(
        first_mm=centre - steps * (np.array(size) - 1) / 2,
        size=size,
        pixel_mm=pixel_mm,
        slice_mm=slice_mm,
        noise_hu=float(rng.uniform(*config.noise_hu)),
        noise_blur_mm=float(rng.uniform(0.35, 0.75)),
        blur_mm=float(rng.uniform(*config.blur_mm)),
        orientation=str(rng.choice(config.orientations)),
        turn=_turn(rng, config.oblique_probability),
        origin_mm=rng.uniform((-25, -220, -900), (25, 40, 300)),
        padded=bool(rng.random() < config.padding_probability),
    )


def scan(anatomy: Anatomy, setup: ScanSetup, seed: np.random.SeedSequence) -> tuple[Volume, Mask]:
    """Take the scan; ``seed`` drives its noise, slice by slice."""
    nx, ny, nz = setup.size
    hu = np.empty((nz, ny, nx), dtype=np.int16)
    labels = np.zeros((nz, ny, nx), dtype=np.uint8)
    bed = _bed(anatomy, setup)
    seeds = seed.spawn(nz)
    per_slice = nx * ny * (2 if setup.slice_mm > _THIN_MM else 1)
    step = max(1, _POINTS_AT_ONCE // per_slice)
    for start in range(0, nz, step):
        cut = slice(start, min(start + step, nz))
        clean, labels[cut] = _slab(anatomy, setup, bed, cut)
        hu[cut] = _recorded(clean, setup, seeds[cut])
    if setup.padded:
        hu[:, _outside_circle(nx)] = PADDING_HU
        labels[:, _outside_circle(nx)] = 0
    return _stored(hu, labels, setup)


def _field_of_view(rng: np.random.Generator, config: PhantomConfig, body_mm: float) -> float:
    low, high = config.field_of_view_mm
    return float(np.clip(body_mm + 10, rng.uniform(low, high), high))


def _pixel(rng: np.random.Generator, config: PhantomConfig, fov_mm: float) -> float:
    low, high = config.in_plane_spacing_mm
    return float(rng.uniform(min(max(low, fov_mm / _USUAL_MATRIX), high), high))


def _slice_spacing(rng: np.random.Generator, config: PhantomConfig) -> float:
    low, high = config.slice_spacing_mm
    usual = [step for step in USUAL_SLICE_SPACINGS_MM if low <= step <= high]
    return float(rng.choice(usual)) if usual else float(rng.uniform(low, high))


def _turn(rng: np.random.Generator, probability: float) -> NDArray[np.float64]:
    oblique, angles = rng.random() < probability, rng.uniform(-4, 4, 3)
    return rotation(*angles.tolist()) if oblique else np.eye(3)


def _bed(anatomy: Anatomy, setup: ScanSetup) -> Float32:
    """Air and the table [ny, nx]: a curved shell filled with foam."""
    low, high = anatomy.skin_box_mm()
    top = low[1] + 8.0
    x, y = setup.positions_mm(0) - (low[0] + high[0]) / 2, setup.positions_mm(1)[:, None]
    depth = (top + x**2 / 900.0) - y
    hu = np.full(depth.shape, _AIR_HU, dtype=np.float32)
    inside = (depth > 0) & (depth < 42) & (np.abs(x) < 215)
    hu[inside] = -930.0
    hu[inside & ((depth < 2.5) | (depth > 39.5))] = -60.0
    return hu


def _slab(anatomy: Anatomy, setup: ScanSetup, bed: Float32, cut: slice) -> tuple[Float32, NDArray[np.uint8]]:
    """Noiseless HU and labels of some slices, averaged over the slice thickness."""
    z = setup.positions_mm(2)[cut]
    thick = setup.slice_mm > _THIN_MM
    if thick:
        z = z[0] + setup.slice_mm * (np.arange(2 * len(z) + 1) - 1) / 2
    low, high = anatomy.skin_box_mm()
    x, y = setup.positions_mm(0), setup.positions_mm(1)
    box = (slice(*np.searchsorted(y, (low[1], high[1]))), slice(*np.searchsorted(x, (low[0], high[0]))))
    hu, labels = anatomy.paint((x[box[1]], y[box[0]], z), bed[box])
    if thick:
        hu = np.asarray(hu[1::2] / 2 + (hu[:-1:2] + hu[2::2]) / 4, dtype=np.float32)
        labels = labels[1::2]
    whole_hu = np.empty((len(labels), len(y), len(x)), dtype=np.float32)
    whole_hu[:] = bed
    whole_hu[:, box[0], box[1]] = hu
    whole_labels = np.zeros(whole_hu.shape, dtype=np.uint8)
    whole_labels[:, box[0], box[1]] = labels
    return whole_hu, whole_labels


def _recorded(clean: Float32, setup: ScanSetup, seeds: list[np.random.SeedSequence]) -> NDArray[np.int16]:
    """What the scanner writes down of ``clean`` slices: blur, noise, rounding, limits."""
    blurred = _blur(clean, setup.blur_mm / setup.pixel_mm)
    sigma = setup.noise_blur_mm / setup.pixel_mm
    for k, seed in enumerate(seeds):
        noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(clean.shape[1:], dtype=np.float32)
        blurred[k] += _blur(noise, sigma) * np.float32(setup.noise_hu / _noise_left(sigma))
    return np.clip(np.rint(blurred), *HU_LIMITS).astype(np.int16)


def _blur(pictures: Float32, sigma: float) -> Float32:
    """Gaussian blur over the last two axes, ``sigma`` in pixels."""
    if sigma <= 0:
        return pictures
    once = gaussian_filter1d(pictures, sigma, axis=-1, mode="nearest", truncate=3.0)
    return np.asarray(gaussian_filter1d(once, sigma, axis=-2, mode="nearest", truncate=3.0), dtype=np.float32)


def _noise_left(sigma: float) -> float:
    """Standard deviation that unit white noise keeps after :func:`_blur`."""
    spike = np.zeros((41, 41), dtype=np.float32)
    spike[20, 20] = 1.0
    return float(np.sqrt((_blur(spike, sigma) ** 2).sum()))


def _outside_circle(side: int) -> NDArray[np.bool_]:
    offset = np.arange(side) - (side - 1) / 2
    return np.asarray(np.hypot(offset, offset[:, None]) > side / 2)


def _stored(hu: NDArray[np.int16], labels: NDArray[np.uint8], setup: ScanSetup) -> tuple[Volume, Mask]:
    """Volume and mask with axes in the order and direction of the setup's orientation code."""
    affine = np.eye(4)
    affine[:3, :3] = setup.turn * (setup.pixel_mm, setup.pixel_mm, setup.slice_mm)
    affine[:3, 3] = setup.origin_mm
    axes = [
        next(i for i, pair in enumerate(("LR", "PA", "IS")) if letter in pair) for letter in setup.orientation
    ]
    flipped = [letter in "LPI" for letter in setup.orientation]
    to_ras = np.zeros((4, 4))
    to_ras[3, 3] = 1
    for stored, (axis, flip) in enumerate(zip(axes, flipped, strict=True)):
        to_ras[axis, stored] = -1 if flip else 1
        to_ras[axis, 3] = setup.size[axis] - 1 if flip else 0
    shape = (setup.size[axes[0]], setup.size[axes[1]], setup.size[axes[2]])
    grid = Grid(shape=shape, affine=affine @ to_ras)
    backwards = tuple(np.flatnonzero(flipped).tolist())
    stored_hu = np.ascontiguousarray(np.flip(hu.T.transpose(axes), backwards))
    stored_labels = np.ascontiguousarray(np.flip(labels.T.transpose(axes), backwards))
    return Volume(hu=stored_hu, grid=grid), Mask(labels=stored_labels, grid=grid)
