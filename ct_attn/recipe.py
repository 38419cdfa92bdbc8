"""A recipe: everything that decides what a training makes, checked, in one object.

The sections of preprocessing, network, loss and training are defined in modules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from ct_attn import atomic, strict_yaml
from ct_attn.errors import UserError
from ct_attn.labels import PAPER_TARGETS, LabelScheme, mirrored_codes
from ct_attn.loss_config import LossConfig
from ct_attn.network.configs import AttentionUNetConfig, NetworkConfig, SlicesConfig
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.strict_model import FieldError, Place, StrictModel, describe_validation_error, places_of
from ct_attn.training_config import TrainingConfig

Precision = Literal["auto", "fp32", "bf16"]


class InferenceConfig(StrictModel):
    """How a whole volume is predicted: in windows that overlap, blended with a Gaussian weight."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Neighbouring windows share at least this fraction of a side of the training's patch."""
    precision: Precision = "auto"
    """As in training."""
    mirroring: bool = False
    """Average with copies mirrored along ``training.augmentation.flip_axes``, the codes of paired organs
    swapped back; twice the work for each axis.
    """


class Recipe(StrictModel):
    """All sections. Only ``name`` is required."""

    name: str
    """Shown in reports."""
    description: str = ""
    """For people."""
    targets: dict[str, tuple[str, ...]] = Field(default=PAPER_TARGETS)
    """What is predicted: each name a union of ``pancreas``, ``spleen``, ``left_kidney`` and
    ``right_kidney``, with the codes 1, 2, ... in this order.
    """
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    """How a scan becomes a network's input."""
    network: NetworkConfig = AttentionUNetConfig()
    """What is trained; its ``kind`` decides which fields it has."""
    slices: SlicesConfig | None = None
    """Train and predict slices rather than volumes; for networks with ``dims: 2``, and only those."""
    loss: LossConfig = LossConfig()
    """What training minimises."""
    training: TrainingConfig = TrainingConfig()
    """How the network's weights are found."""
    inference: InferenceConfig = InferenceConfig()
    """How a whole volume is predicted."""

    @model_validator(mode="before")
    @classmethod
    def _dimensions_come_first(cls, fields: Any) -> Any:
        """Otherwise a 2D network in a recipe of volumes would be told that its sizes have three axes."""
        network = fields.get("network") if isinstance(fields, dict) else None
        if isinstance(network, dict) and network.get("dims") == 2 and fields.get("slices") is None:
            raise _without_slices()
        return fields

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if not self.targets:
            raise FieldError("targets", "name at least one")
        try:
            _ = self.label_scheme
        except ValueError as error:
            raise FieldError("targets", str(error)) from error
        if "R" in self.training.augmentation.flip_axes:
            try:
                mirrored_codes(self.label_scheme)
            except ValueError as error:
                flips = "training.augmentation.flip_axes"
                raise FieldError(flips, f"no R, for {error}", related=("targets",)) from error
        self._require_volumes_or_slices()
        patch = self.training.patch_size
        try:
            self.network.require_size(tuple(patch[axis] for axis in self.axes[: self.network.dims]))
        except ValueError as error:
            raise FieldError(
                "training.patch_size", f"for this network {error}", related=("network",)
            ) from error
        return self

    def _require_volumes_or_slices(self) -> None:
        """Raise :class:`FieldError` where a 2D network has no slices, or slices no 2D network."""
        across = None if self.slices is None else self.slices.axis
        if across is None and self.network.dims != 3:
            raise _without_slices()
        if across is not None and self.network.dims != 2:
            raise FieldError("network.dims", "slices need a network with dims: 2", related=("slices",))
        for axis, step in enumerate(self.preprocessing.spacing_mm):
            if (step is None) != (axis == across):
                expected = "null, for the axis across slices" if axis == across else "a number"
                raise FieldError(
                    "preprocessing.spacing_mm", f"expected {expected}, along {'RAS'[axis]}",
                    related=("slices",),
                )  # fmt: skip

    @property
    def label_scheme(self) -> LabelScheme:
        """The codes of what this recipe's network predicts."""
        return LabelScheme.from_targets(self.targets)

    @property
    def n_classes(self) -> int:
        """The targets and background."""
        return len(self.targets) + 1

    @property
    def axes(self) -> tuple[int, int, int]:
        """R, A and S as volumes are gone through: the one across slices last."""
        return (0, 1, 2) if self.slices is None else self.slices.order

    @property
    def size_multiple(self) -> tuple[int, int, int]:
        """What the sides of a window along R, A and S must be multiples of."""
        sides = list(self.network.size_multiple)
        if self.slices is not None:
            sides.insert(self.slices.axis, 1)
        return sides[0], sides[1], sides[2]

    @property
    def n_outputs(self) -> int:
        """Channels the network ends in: the classes, or with sigmoids the targets alone."""
        return self.n_classes if self.loss.activation == "softmax" else len(self.targets)


def _without_slices() -> FieldError:
    return FieldError(
        "network.dims", "a network of 2 dimensions sees slices: add a section slices, or take dims 3"
    )


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the YAML file ``path`` with ``overrides`` such as ``training.epochs=5``.

    Raises :class:`UserError` naming the file and line of what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            path, expected="a recipe (YAML)", found=error.strerror or "none", remedy="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            path, expected="a recipe (YAML)", found="bytes that are no text", remedy="check the path"
        ) from error
    return parse_recipe(text, overrides, source=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), *, source: str) -> Recipe:
    """The recipe in ``text``; ``source`` names it in errors."""
    try:
        fields = strict_yaml.load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        place = getattr(error, "problem_mark", None)
        where = f"{source}:{place.line + 1}" if place else source
        raise UserError(
            where, expected="YAML", found=str(getattr(error, "problem", error)), remedy="mend the line"
        ) from error
    if not isinstance(fields, dict):
        raise UserError(
            source, expected="a mapping of sections", found=type(fields).__name__, remedy="see pipelines/"
        )
    for override in overrides:
        _apply(fields, override)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise UserError(
            _locate(text, places_of(error), overrides, source),
            expected="a recipe's fields",
            found=describe_validation_error(error),
            remedy="mend it there or in --set (docs/recipe-reference.md lists the fields)",
        ) from error


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write every field of ``recipe``, defaults included, as YAML that reads back to it."""
    atomic.write_text(path, strict_yaml.dump(recipe.model_dump(mode="json")))


def _apply(fields: dict[str, Any], override: str) -> None:
    """Set ``a.b`` to ``v`` in nested ``fields`` for the override ``a.b=v``; a section that is null begins."""
    _, equals, value = override.partition("=")
    *sections, last = _path(override)
    if not equals or not last:
        raise UserError(
            f"--set {override}", expected="section.field=value", found="something else", remedy="mend it"
        )
    place = fields
    for section in sections:
        inner = place.get(section)
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            raise UserError(
                f"--set {override}",
                expected="a section before the dot",
                found=f"the field {section}",
                remedy="mend it",
            )
        place = inner
    try:
        place[last] = strict_yaml.load(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        raise UserError(
            f"--set {override}", expected="a YAML value behind =", found=str(error), remedy="quote or mend it"
        ) from error


def _locate(text: str, places: Sequence[Place], overrides: Sequence[str], source: str) -> str:
    """The override that set one of ``places``, or ``source:line``, as near as they come."""
    for place in places:
        for override in reversed(overrides):
            first, *rest = _path(override)
            parts = iter(map(str, place[1:]))
            if place and first == str(place[0]) and all(key in parts for key in rest):
                return f"--set {override}"
        line, whole = strict_yaml.line_of(text, place)
        if line is not None and whole:
            return f"{source}:{line}"
    line, _ = strict_yaml.line_of(text, places[0])
    return source if line is None else f"{source}:{line}"


def _path(override: str) -> list[str]:
    """The names in front of the equals sign of ``a.b=v``."""
    return override.partition("=")[0].strip().split(".")
