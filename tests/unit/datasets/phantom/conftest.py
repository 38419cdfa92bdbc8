"""Coarse cases that several tests look at."""

from __future__ import annotations

import pytest

from ct_attn.datasets.phantom import PhantomCase, PhantomConfig, draw_case

COARSE = PhantomConfig(in_plane_spacing_mm=(4.0, 4.0), slice_spacing_mm=(4.0, 4.0))


@pytest.fixture(scope="session")
def coarse_config() -> PhantomConfig:
    return COARSE


@pytest.fixture(scope="session")
def coarse_cases() -> list[PhantomCase]:
    return [draw_case(seed, COARSE) for seed in (0, 3, 9, 15)]
