from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError, field_validator, model_validator

from ct_attn.strict_model import (
    WHOLE,
    FieldError,
    FrozenModel,
    StrictModel,
    describe_validation_error,
    places_of,
)


class Inner(StrictModel):
    share: float
    sides: tuple[tuple[int, ...], ...] = ()
    count: int = 1
    dims: Annotated[Literal[1, 2], WHOLE] = 1
    on: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Inner:
        if self.count > self.share * 100:
            raise FieldError("count", f"at most {self.share * 100:g}", related=("share",))
        return self


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("share", True), ("share", "0.5"), ("count", True), ("count", "7"), ("count", 3.0), ("dims", True),
        ("dims", 2.0), ("on", 1), ("on", "off"), ("sides", "ab"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_in_python_and_in_json(field, value):
    fields = {"share": 0.5, field: value}
    assert complaint(GOOD | {"inner": fields}).startswith(f"inner.{field}: ")
    with pytest.raises(ValidationError):
        Inner.model_validate_json(json.dumps(fields))


def test_lists_are_tuples_and_whole_numbers_numbers():
    fields = {"share": 1, "sides": [[1, 2], [3]]}
    for read in (Inner.model_validate(fields), Inner.model_validate_json(json.dumps(fields))):
        assert read == Inner(share=1.0, sides=((1, 2), (3,)))


def test_what_a_validator_says_of_a_field_is_told_with_its_place():
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(GOOD | {"inner": {"share": 0.5, "count": 51}})
    assert describe_validation_error(caught.value) == "inner.count: at most 50"
    assert places_of(caught.value) == [("inner", "count"), ("inner", "share")]


def test_what_another_validator_says_is_told_in_its_own_words():
    class Slices(StrictModel):
        neighbours: int = 1

        @field_validator("neighbours")
        @classmethod
        def _is_odd(cls, neighbours: int) -> int:
            if neighbours % 2 == 0:
                raise ValueError(f"expected an odd number, got {neighbours}")
            return neighbours

    with pytest.raises(ValidationError) as caught:
        Slices(neighbours=4)
    assert describe_validation_error(caught.value) == "neighbours: expected an odd number, got 4"


def test_another_complaint_has_the_place_pydantic_gives():
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(GOOD | {"inner": {"share": 0.5, "sides": [[1], [2, "a"]]}})
    assert places_of(caught.value) == [("inner", "sides", 1, 1)]


class Written(FrozenModel):
    count: int
    settings: dict[str, Any]


def test_what_commands_write_is_taken_as_it_comes_but_for_unknown_keys():
    read = Written.model_validate({"count": np.int64(3), "settings": {"sides": [1, 2]}})
    assert read.count == 3
    assert read.settings == {"sides": [1, 2]}  # no tuple: compared with what is asked for next
    assert Written.model_validate_json(read.model_dump_json()) == read
    with pytest.raises(ValidationError, match="Extra inputs"):
        Written.model_validate({"count": 3, "settings": {}, "other": 1})
