"""Frozen pydantic models: what commands write, and, with wrong types refused, what people write by hand."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

Place = tuple[int | str, ...]


class FrozenModel(BaseModel):
    """A frozen record parsed from a file, where unknown keys are refused.

    The text below a field is its description.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class StrictModel(FrozenModel):
    """A record that people write.

    A value must have its field's type: ``true`` is no number, ``"7"`` and ``3.0`` are no whole
    numbers, 1 is no boolean. A whole number will do where a number is asked for.
    """

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_become_tuples(cls, fields: Any) -> Any:
        try:
            return _with_tuples(fields)  # files have lists, frozen records tuples
        except RecursionError as error:
            raise PydanticCustomError("recursion_loop", "A value may not contain itself") from error


class FieldError(ValueError):
    """What a model's validator says of ``field``, a dotted path from that model, beside its other fields.

    ``related`` are fields that decide it too: the place of the fault where the file leaves out
    ``field`` itself.
    """

    def __init__(self, field: str, message: str, *, related: tuple[str, ...] = ()) -> None:
        super().__init__(f"{field}: {message}")
        self.fields = (field, *related)


def _only_whole(value: Any) -> Any:
    if type(value) is not int:
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


#: For ``Literal`` of whole numbers, which would also take ``true`` for 1 and 2.0 for 2.
WHOLE = BeforeValidator(_only_whole)


def describe_validation_error(error: ValidationError) -> str:
    """Pydantic's first complaint as one line: where, what."""
    first = error.errors(include_url=False)[0]
    cause = _field_error(first)
    place = ".".join(str(part) for part in first["loc"])
    said = f"{place}{'.' if cause else ': '}" if place else ""
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{said}{cause or first['msg'].removeprefix('Value error, ')}{more}"


def places_of(error: ValidationError) -> list[Place]:
    """Where the first complaint's fault may lie, likeliest first; union tags are parts of a place."""
    first = error.errors(include_url=False)[0]
    cause = _field_error(first)
    fields = cause.fields if cause else ()
    return [first["loc"] + tuple(field.split(".")) for field in fields] or [first["loc"]]


def _field_error(complaint: Any) -> FieldError | None:
    cause = complaint.get("ctx", {}).get("error")
    return cause if isinstance(cause, FieldError) else None


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return value
