from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ct_attn.metrics.areas import area_table_mm2, step_vectors_mm

few = settings(max_examples=25, deadline=None)
spacings = st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 2.5, 3.0])] * 3)
SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (3.0, 0.7, 1.1), (0.31, 4.2, 1.7)]


def table_of(spacing_mm):
    return area_table_mm2(step_vectors_mm(spacing_mm))


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_all_256_areas_are_those_of_monai(spacing_mm):
    from monai.metrics.utils import get_code_to_measure_table

    table, kernel = get_code_to_measure_table(spacing_mm)
    assert kernel.ravel().tolist() == [128, 64, 32, 16, 8, 4, 2, 1]  # our order of the corners
    np.testing.assert_allclose(table_of(spacing_mm), table.numpy(), rtol=2e-6, atol=0)


def test_areas_to_check_by_hand():
    table = table_of((1, 2, 3))
    assert table[[0b00000000, 0b11111111]].tolist() == [0, 0]
    # four corners on one side: a whole face across i, j or k
    assert table[[0b00001111, 0b00110011, 0b01010101]].tolist() == [6, 3, 2]
    # one corner: half the cross product of the half edges (-.5, 1, 0) and (-.5, 0, 1.5)
    assert table[0b10000000] == pytest.approx(np.linalg.norm([1.5, 0.75, 0.5]) / 2)


@few
@given(code=st.integers(0, 255), spacing_mm=spacings, order=st.permutations(range(3)), flipped=st.booleans())
def test_areas_do_not_depend_on_the_side_one_looks_from(code, spacing_mm, order, flipped):
    corners = np.array(list(f"{code:08b}")).reshape(2, 2, 2)
    seen = (corners[::-1] if flipped else corners).transpose(order)
    seen_code = int("".join(seen.ravel()), 2)
    seen_spacing_mm = tuple(spacing_mm[axis] for axis in order)
    areas_mm2 = table_of(spacing_mm)
    assert table_of(seen_spacing_mm)[seen_code] == pytest.approx(areas_mm2[code])
    assert areas_mm2[255 - code] == pytest.approx(areas_mm2[code])


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_all_256_areas_are_those_of_google(spacing_mm):
    from surface_distance import lookup_tables

    table = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    np.testing.assert_allclose(table_of(spacing_mm), table, rtol=1e-12, atol=0)
