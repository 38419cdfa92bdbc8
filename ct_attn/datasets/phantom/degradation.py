"""Scans that got worse after they were taken: noise, blur, metal, thick slices, a smaller field of view.

The patient stays the same, and so do the labels wherever voxels do, so that a model can
be scored on a scan and its worse copies without being trained again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from ct_attn.datasets.phantom.fields import Float32, Float64
from ct_attn.datasets.phantom.scanner import HU_LIMITS, PADDING_HU
from ct_attn.volume import Grid, Mask, Volume

#: Width of the reconstruction kernel that colours noise.
_NOISE_KERNEL_MM = 0.6
#: Rods beside the spine, as of a spinal fusion: their radius, how far they lie apart, how long they are.
_ROD_MM, _ROD_GAP_MM, _ROD_LENGTH_MM = 3.0, 36.0, 120.0
_METAL_HU = 3071
#: Sides and views of the sinogram that streaks are computed from; they are smooth enough.
_STREAK_GRID, _STREAK_VIEWS = 128, 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """What becomes of a scan; the default leaves it as it is.

    ``noise``: its standard deviation, as a multiple of what the scan had. ``blur_mm``:
    standard deviation of a blur along all axes. ``streaks``: HU (root mean square within
    5 cm of the rods) of the artefacts of two metal rods beside the spine, which are put
    in. ``slices``: as many become one, of their joint thickness. ``field_of_view``: the
    part of both sides in plane that is left around the scan's middle.

    Raises ``ValueError`` for a noise below 1, a negative blur or streaks, fewer than one
    slice, or a field of view outside 0 to 1.
    """

    noise: float = 1.0
    blur_mm: float = 0.0
    streaks: float = 0.0
    slices: int = 1
    field_of_view: float = 1.0

    def __post_init__(self) -> None:
        if self.noise < 1 or self.blur_mm < 0 or self.streaks < 0 or self.slices < 1:
            raise ValueError("noise and slices are at least 1, blur_mm and streaks at least 0")
        if not 0 < self.field_of_view <= 1:
            raise ValueError("field_of_view is above 0 and at most 1")


UNCHANGED = Degradation()


def parse_degradation(text: str) -> Degradation:
    """The degradation in ``noise=2,blur_mm=1``. Raises ``ValueError`` naming what is wrong."""
    known = {field.name: int if field.name == "slices" else float for field in fields(Degradation)}
    values: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in known:
            raise ValueError(f"unknown {name.strip()!r}; known are {', '.join(known)}")
        values[name.strip()] = known[name.strip()](value)
    return Degradation(**values)  # type: ignore[arg-type] # slices was read as int


def degrade(
    volume: Volume, mask: Mask, how: Degradation, seed: np.random.SeedSequence, *, noise_hu: float
) -> tuple[Volume, Mask]:
    """``volume`` (int16 HU) and ``mask`` made worse; the same ``seed`` gives the same bytes.

    ``noise_hu``: the standard deviation of the noise that the scan has. Thicker slices
    and a smaller field of view change the grid of both.
    """
    if how == UNCHANGED:
        return volume, mask
    order = _in_plane_then_across(volume.grid)
    hu = volume.hu.transpose(order).astype(np.float32)
    steps_mm = tuple(volume.grid.spacing_mm[axis] for axis in order)
    padding = hu <= PADDING_HU
    metal_seed, noise_seed = seed.spawn(2)
    if how.streaks:
        hu = _with_metal(hu, _posterior(volume.grid, order), steps_mm, how.streaks, metal_seed)
    if how.blur_mm:
        hu = gaussian_filter(hu, [how.blur_mm / step for step in steps_mm], mode="nearest")
    if how.noise > 1:
        hu += _noise(hu.shape, steps_mm, noise_seed) * np.float32(noise_hu * np.sqrt(how.noise**2 - 1))
    hu = np.clip(np.rint(hu), *HU_LIMITS)
    hu[padding] = PADDING_HU
    back = tuple(int(axis) for axis in np.argsort(order))
    worse = Volume(hu=np.ascontiguousarray(hu.transpose(back).astype(np.int16)), grid=volume.grid)
    return _cropped(*_thickened(worse, mask, order[2], how.slices), order, how.field_of_view)


def _in_plane_then_across(grid: Grid) -> tuple[int, int, int]:
    """The stored axes that run closest to R, A and S."""
    r, a, s = (
        next(axis for axis in range(3) if grid.orientation[axis] in pair) for pair in ("LR", "PA", "IS")
    )
    return r, a, s


def _posterior(grid: Grid, order: tuple[int, int, int]) -> bool:
    """Whether the axis along A runs to the back."""
    return grid.orientation[order[1]] == "P"


def _noise(shape: tuple[int, ...], steps_mm: tuple[float, ...], seed: np.random.SeedSequence) -> Float32:
    """Noise [I, J, K] of standard deviation 1, slices by themselves, as filtered backprojection leaves it.

    Its power rises in proportion to the spatial frequency and then falls with the kernel
    (Riederer, Pelc and Chesler 1978), so that neighbours are weakly anticorrelated.
    """
    frequencies = [np.fft.fftfreq(side, step) for side, step in zip(shape[:2], steps_mm[:2], strict=True)]
    f = np.hypot(frequencies[0][:, None], frequencies[1])
    gain = np.sqrt(f) * np.exp(-((np.pi * f * _NOISE_KERNEL_MM) ** 2))
    gain /= np.sqrt((gain**2).mean())
    noise = np.empty(shape, dtype=np.float32)
    for k, own in enumerate(seed.spawn(shape[2])):
        white = np.random.Generator(np.random.PCG64(own)).standard_normal(shape[:2])
        noise[..., k] = np.fft.ifft2(np.fft.fft2(white) * gain).real
    return noise


def _with_metal(
    hu: Float32,
    posterior: bool,
    steps_mm: tuple[float, ...],
    strength_hu: float,
    seed: np.random.SeedSequence,
) -> Float32:
    """``hu`` [R, A, S] with two rods beside the spine and the streaks they cause."""
    body = np.argwhere(hu[:, :, hu.shape[2] // 2] > -300)
    low, high = body.min(axis=0), body.max(axis=0)
    back = 0.78 if posterior else 0.22
    middle = np.array([(low[0] + high[0]) / 2, low[1] + back * (high[1] - low[1])])
    i, j = np.meshgrid(np.arange(hu.shape[0]), np.arange(hu.shape[1]), indexing="ij")
    x_mm, y_mm = (i - middle[0]) * steps_mm[0], (j - middle[1]) * steps_mm[1]
    radii_mm = [np.hypot(x_mm - side * _ROD_GAP_MM / 2, y_mm) for side in (-1, 1)]
    streaks = _streaks(x_mm, y_mm, seed)
    near = np.minimum(*radii_mm) < 50
    streaks *= np.float32(strength_hu / np.sqrt((streaks[near] ** 2).mean()))
    rods = np.minimum(*radii_mm) <= max(_ROD_MM, *steps_mm[:2])
    z_mm = (np.arange(hu.shape[2]) - (hu.shape[2] - 1) / 2) * steps_mm[2]
    fade = np.clip((_ROD_LENGTH_MM / 2 - np.abs(z_mm)) / 5 + 0.5, 0, 1).astype(np.float32)
    worse = hu + streaks[..., None] * fade
    worse[rods[..., None] & (fade > 0.5)] = _METAL_HU
    return np.asarray(worse, dtype=np.float32)


def _streaks(x_mm: Float64, y_mm: Float64, seed: np.random.SeedSequence) -> Float32:
    """What beam hardening and starved detectors make of two rods, up to a factor, at places in mm.

    Rays through metal are measured too low, the more so the more metal they cross (the
    square of its length), and noisily; the error is filtered and backprojected.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    half_mm = float(max(np.abs(x_mm).max(), np.abs(y_mm).max())) * 1.05
    at = (np.arange(_STREAK_GRID) + 0.5) / _STREAK_GRID * 2 * half_mm - half_mm
    pixel_mm = 2 * half_mm / _STREAK_GRID
    radius_mm = max(_ROD_MM, 0.75 * pixel_mm)
    frequencies = np.abs(np.fft.fftfreq(2 * _STREAK_GRID))
    picture = np.zeros((_STREAK_GRID, _STREAK_GRID))
    for angle in np.arange(_STREAK_VIEWS) * 180 / _STREAK_VIEWS:
        offset_mm = _ROD_GAP_MM / 2 * np.cos(np.deg2rad(angle))
        chords = [
            2 * np.sqrt(np.clip(radius_mm**2 - (at - side * offset_mm) ** 2, 0, None)) for side in (-1, 1)
        ]
        length = chords[0] + chords[1]
        error = -(length**2) * (1 + 0.3 * rng.standard_normal(_STREAK_GRID))
        filtered = np.fft.ifft(np.fft.fft(error, 2 * _STREAK_GRID) * frequencies).real[:_STREAK_GRID]
        smeared = np.broadcast_to(filtered[:, None], picture.shape)
        picture += rotate(smeared, angle, reshape=False, order=1, mode="nearest")
    index = [np.clip((place + half_mm) / pixel_mm - 0.5, 0, _STREAK_GRID - 1) for place in (x_mm, y_mm)]
    return _bilinear(picture, index[0], index[1]).astype(np.float32)


def _bilinear(picture: Float64, i: Float64, j: Float64) -> Float64:
    low_i, low_j = (np.minimum(at.astype(int), _STREAK_GRID - 2) for at in (i, j))
    share_i, share_j = i - low_i, j - low_j
    upper = picture[low_i, low_j] * (1 - share_j) + picture[low_i, low_j + 1] * share_j
    lower = picture[low_i + 1, low_j] * (1 - share_j) + picture[low_i + 1, low_j + 1] * share_j
    return np.asarray(upper * (1 - share_i) + lower * share_i)


def _thickened(volume: Volume, mask: Mask, axis: int, slices: int) -> tuple[Volume, Mask]:
    """Every ``slices``-th slice, averaged over as many; labels are those at its middle.

    With an even number the outermost two of one more count half, so that every middle is a
    slice that was there.
    """
    if slices == 1:
        return volume, mask
    half = slices // 2
    weights = np.ones(2 * half + 1, dtype=np.float32)
    if slices % 2 == 0:
        weights[[0, -1]] = 0.5
    hu = np.moveaxis(volume.hu, axis, 0)
    middles = np.arange(half, hu.shape[0] - half, slices)
    if not middles.size:
        raise ValueError(f"{slices} slices cannot become one: the scan has {hu.shape[0]}")
    averaged = np.zeros((len(middles), *hu.shape[1:]), dtype=np.float32)
    for offset, weight in zip(range(-half, half + 1), weights, strict=True):
        averaged += weight * hu[middles + offset]
    thick = np.moveaxis(np.rint(averaged / weights.sum()).astype(np.int16), 0, axis)
    labels = mask.labels.take(middles, axis)
    affine = np.array(volume.grid.affine)
    affine[:3, 3] += half * affine[:3, axis]
    affine[:3, axis] *= slices
    grid = Grid(shape=_shape(thick), affine=affine)
    return Volume(hu=np.ascontiguousarray(thick), grid=grid), Mask(labels=labels, grid=grid)


def _cropped(
    volume: Volume, mask: Mask, order: tuple[int, int, int], field_of_view: float
) -> tuple[Volume, Mask]:
    if field_of_view == 1:
        return volume, mask
    box = [slice(None)] * 3
    affine = np.array(volume.grid.affine)
    for axis in order[:2]:
        side = volume.grid.shape[axis]
        kept = max(1, round(side * field_of_view))
        first = (side - kept) // 2
        box[axis] = slice(first, first + kept)
        affine[:3, 3] += first * affine[:3, axis]
    hu = volume.hu[tuple(box)].copy()
    grid = Grid(shape=_shape(hu), affine=affine)
    return Volume(hu=hu, grid=grid), Mask(labels=np.ascontiguousarray(mask.labels[tuple(box)]), grid=grid)


def _shape(array: NDArray[Any]) -> tuple[int, int, int]:
    return array.shape[0], array.shape[1], array.shape[2]
