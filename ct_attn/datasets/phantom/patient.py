"""One random patient: what all structures share, and how a structure is put in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from ct_attn.datasets.phantom.ct_numbers import CtNumbers, draw_ct_numbers
from ct_attn.datasets.phantom.fields import Float32, noise_field
from ct_attn.datasets.phantom.painting import Coat, Layer, Paint, Samples, solid_boxes
from ct_attn.datasets.phantom.pose import Pose, draw_pose
from ct_attn.datasets.phantom.shapes import Point, Solid

#: (step in mm, standard deviation in mm) of each field that deforms a surface.
Wobble = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Habitus:
    """Proportions of the trunk in body mm, fat depots included."""

    cavity_half_width_mm: float
    cavity_half_depth_mm: float
    cavity_centre_y_mm: float
    wall_mm: float
    flank_fat_mm: float
    front_fat_mm: float
    perirenal_fat_mm: float
    roundness: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patient:
    """Pose, proportions and CT numbers of one patient, and random streams by name."""

    seed: np.random.SeedSequence
    pose: Pose
    habitus: Habitus
    numbers: CtNumbers

    def stream(self, name: str) -> np.random.Generator:
        return stream(self.seed, name)

    def layer(
        self,
        name: str,
        coats: Sequence[Coat],
        solids: Sequence[Solid],
        *,
        wobble: Wobble = (),
        carved: Sequence[Solid] = (),
        within: str = "",
        inset_mm: float = 0.0,
    ) -> Layer:
        """A layer placed in the scanner, its surface deformed by random fields of its own."""
        margin = max(coat.reach_mm for coat in coats) + 3 * sum(sd for _, sd in wobble) + 1
        boxes = solid_boxes([*solids, *carved], self.pose, margin_mm=margin)
        low, high = boxes[: len(solids), 0].min(axis=0), boxes[: len(solids), 1].max(axis=0)
        rng = self.stream(f"{name} surface")
        return Layer(
            name=name,
            coats=tuple(coats),
            solids=tuple(solids),
            carved=tuple(carved),
            wobble=tuple(noise_field(rng, low, high, step_mm=step, sd=sd) for step, sd in wobble),
            within=within,
            inset_mm=inset_mm,
            boxes_mm=boxes,
        )

    def textured(self, tissue: str, sd_hu: float) -> Paint:
        """Paint with the tissue's CT number and fine texture of ``sd_hu``."""
        return textured(self.numbers[tissue], sd_hu)

    def jitter(self, rng: np.random.Generator, point: Point, sd_mm: float) -> Point:
        """``point`` moved at random, at most two standard deviations along each axis."""
        x, y, z = (np.array(point) + sd_mm * np.clip(rng.standard_normal(3), -2, 2)).tolist()
        return x, y, z


def child_seed(seed: np.random.SeedSequence, name: str) -> np.random.SeedSequence:
    """The seed of one part of a case: a new name leaves the seeds of all others as they are."""
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, crc32(name.encode())))


def stream(seed: np.random.SeedSequence, name: str) -> np.random.Generator:
    """The random numbers of one part of a case."""
    return np.random.Generator(np.random.PCG64(child_seed(seed, name)))


def textured(hu: float, sd_hu: float) -> Paint:
    def paint(samples: Samples) -> Float32:
        values = samples.texture * np.float32(sd_hu)
        values += np.float32(hu)
        return values

    return paint


def draw_patient(seed: np.random.SeedSequence, *, scale: float) -> Patient:
    """A random patient ``scale`` times the size of an average adult."""
    return Patient(
        seed=seed,
        pose=draw_pose(stream(seed, "pose"), scale=scale),
        habitus=draw_habitus(stream(seed, "habitus")),
        numbers=draw_ct_numbers(stream(seed, "ct numbers")),
    )


def draw_habitus(rng: np.random.Generator) -> Habitus:
    """Random proportions; one number, how fat the patient is, drives all fat depots."""
    fatness = float(rng.beta(1.6, 2.2))
    return Habitus(
        cavity_half_width_mm=float(rng.uniform(122, 134)) + 8 * fatness,
        cavity_half_depth_mm=float(rng.uniform(70, 78)) + 16 * fatness,
        cavity_centre_y_mm=float(rng.uniform(22, 26)) + 10 * fatness,
        wall_mm=float(rng.uniform(10, 15)),
        flank_fat_mm=float(rng.uniform(3, 9)) + 22 * fatness,
        front_fat_mm=float(rng.uniform(4, 9)) + 24 * fatness,
        perirenal_fat_mm=float(rng.uniform(2, 5)) + 13 * fatness,
        roundness=float(rng.uniform(2.25, 2.75)),
    )
