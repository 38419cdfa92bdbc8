from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.report.budget import fit_page, named


@given(
    savings=st.lists(st.integers(1, 50), max_size=30),
    numbers=st.integers(0, 200),
    max_bytes=st.integers(1, 1000),
)
def test_a_page_makes_no_more_economies_than_it_needs(savings, numbers, max_bytes):
    def render(n):
        return "x" * (numbers + sum(savings[n:]))

    page = fit_page(render, len(savings), max_bytes=max_bytes)
    sizes = [len(render(n)) for n in range(len(savings) + 1)]
    assert len(page) == next((size for size in sizes if size <= max_bytes), sizes[-1])


def test_bytes_count_and_not_letters():
    assert fit_page(lambda n: "±" * (10 - n), 9, max_bytes=10) == "±" * 5


@pytest.mark.parametrize(
    ("case_ids", "words"), [(["a", "b", "a"], "a, b"), (list("abcde"), "a, b, c and 2 more"), ([], "")]
)
def test_many_cases_are_counted_and_some_named(case_ids, words):
    assert named(case_ids, most=3) == words
