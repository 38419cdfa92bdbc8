from __future__ import annotations

import pytest
from pydantic import ValidationError

from ct_attn.strict_model import StrictModel, describe_validation_error


class Inner(StrictModel):
    share: float


class Outer(StrictModel):
    name: str
    inner: Inner
    """What it holds."""


GOOD = {"name": "a", "inner": {"share": 0.5}}


def complaint(fields) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(fields)
    return describe_validation_error(caught.value)


def test_a_model_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Outer.model_validate(GOOD).name = "b"


def test_the_text_below_a_field_is_its_description():
    assert Outer.model_fields["inner"].description == "What it holds."


def test_a_key_that_means_nothing_is_refused_by_name():
    assert complaint(GOOD | {"nmae": "b"}) == "nmae: Extra inputs are not permitted"


@pytest.mark.parametrize("share", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_where_it_stands(share):
    assert complaint(GOOD | {"inner": {"share": share}}).startswith("inner.share: ")


def test_of_several_faults_the_first_is_told_and_the_others_counted():
    said = complaint({"inner": {}})
    assert said == "name: Field required (and 1 more)"
    assert "\n" not in said
