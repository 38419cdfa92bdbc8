from __future__ import annotations

import numpy as np
import pytest

from ct_attn.datasets.phantom.fields import function_field, noise_field

LOW, HIGH = np.array([-20.0, -10.0, 0.0]), np.array([20.0, 30.0, 25.0])


def axes(nx, ny, nz):
    return tuple(np.linspace(low, high, n) for low, high, n in zip(LOW, HIGH, (nx, ny, nz), strict=True))


def test_a_linear_function_is_reproduced_exactly():
    def value(at):
        return (2 * at[0] - 3 * at[1][:, None] + at[2][:, None, None] + 5).astype(np.float32)

    field = function_field(value, LOW, HIGH, step_mm=7.0)
    places = axes(5, 9, 4)
    assert np.allclose(field.sample(places), value(places), atol=1e-4)


def test_sampling_on_axes_and_at_points_agree():
    field = noise_field(np.random.default_rng(1), LOW, HIGH, step_mm=6.0, sd=2.0)
    x, y, z = axes(6, 5, 4)
    points = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).transpose(2, 1, 0, 3).reshape(-1, 3)
    assert np.allclose(field.sample((x, y, z)).ravel(), field.at(points), atol=1e-4)


def test_a_part_of_the_axes_gives_that_part_of_the_values():
    field = noise_field(np.random.default_rng(1), LOW, HIGH, step_mm=6.0, sd=2.0)
    x, y, z = axes(30, 20, 10)
    whole = field.sample((x, y, z))
    assert np.allclose(field.sample((x[7:19], y[3:5], z[8:9])), whole[8:9, 3:5, 7:19], atol=1e-5)


def test_noise_has_the_standard_deviation_asked_for():
    high = np.array([200.0, 200.0, 200.0])
    field = noise_field(np.random.default_rng(0), -high, high, step_mm=10.0, sd=3.0)
    places = np.linspace(-190, 190, 60)
    assert field.sample((places, places, places)).std() == pytest.approx(3.0, rel=0.05)
