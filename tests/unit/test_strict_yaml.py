from __future__ import annotations

import pytest
import yaml

from ct_attn.strict_yaml import dump, line_of, load

TEXT = """\
a: 1
b:
  c: [1, 2]
  d:
    - x
    - y: 3
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("-2E+5", -2e5), (".5e1", 5.0), ("1.e-3", 0.001), ("12", 12), ("1.5", 1.5)],
)
def test_a_number_is_a_number_with_or_without_a_point(text, value):
    found = load(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["e3", "1e", "1e3x", "3d-e4", "'1e3'"])
def test_what_only_looks_like_one_is_text(text):
    assert load(text) == text.strip("'")


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: 2\na: 3\n", 3), ("a:\n  b: 1\n  b: 1\n", 3), ("[{a: 1, a: 2}]", 1)]
)
def test_a_key_that_is_there_twice_is_refused_where_it_stands(text, line):
    with pytest.raises(yaml.MarkedYAMLError, match=r"the key . twice") as refused:
        load(text)
    assert refused.value.problem_mark.line + 1 == line


def test_a_key_that_is_no_text_or_number_is_refused():
    with pytest.raises(yaml.YAMLError, match="unhashable"):
        load("[1, 2]: 3")


def test_sections_may_have_the_same_keys_and_merge():
    assert load("a: &one {x: 1}\nb: {<<: *one, y: 2}\n") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


@pytest.mark.parametrize("value", ["1e3", "1.5", "true", "null", "Länge", 1e-07, 1000.0, 3, [1, None], True])
def test_what_is_written_reads_back_as_it_was(value):
    (back,) = load(dump({"key": value})).values()
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("a",), (1, True)),
        (("b", "c"), (3, True)),
        (("b", "c", 1), (3, True)),
        (("b", "d", 1, "y"), (6, True)),
        (("b", "tag", "c"), (3, True)),
        (("b", "e"), (2, False)),
        (("e",), (None, False)),
        ((), (None, True)),
    ],
)
def test_a_value_is_found_as_deep_as_the_text_has_it(place, expected):
    assert line_of(TEXT, place) == expected
