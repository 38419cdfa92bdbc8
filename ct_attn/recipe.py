"""A recipe: everything that decides what a training makes, checked, in one object.

The sections of network, loss and preprocessing are defined beside what they
configure; those of augmentation, training and inference are defined here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from ct_attn import atomic
from ct_attn.errors import UserError
from ct_attn.labels import PAPER_TARGETS, LabelScheme, mirrored_codes
from ct_attn.loss_config import LossConfig
from ct_attn.network.configs import AttentionUNetConfig, NetworkConfig, SlicesConfig
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.strict_model import StrictModel, describe_validation_error

Precision = Literal["auto", "fp32", "bf16"]
Size = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Zoom = Annotated[float, Field(gt=0)]


class AugmentationConfig(StrictModel):
    """Random changes to training patches. 0 (of ``flip_axes``: none) switches a change off."""

    affine_probability: Fraction = 0.5
    """Share of patches that are turned, shifted and zoomed in plane."""
    rotation_degrees: Amount = 15.0
    """Bound of the turn."""
    shift_fraction: Amount = 0.1
    """Bound of the shift, as a fraction of the patch."""
    zoom: tuple[Zoom, Zoom] = (0.7, 1.3)
    """Range of the sides of the region that a patch shows, relative to the patch, drawn for
    each axis; 1.3 shows more of the patient, and smaller.
    """
    flip_axes: tuple[Literal["R", "A", "S"], ...] = ()
    """Axes along which every second patch is mirrored. Along R, left and right kidney change
    their codes.
    """
    intensity_probability: Fraction = 0.5
    """Share of patches that have each of the next four changes."""
    noise: Amount = 0.03
    """Largest standard deviation of the noise, in units of the HU window."""
    brightness: Amount = 0.05
    """Bound of what is added, in units of the HU window."""
    contrast: Amount = 0.15
    """Bound of the relative change around the patch's mean."""
    gamma: Amount = 0.2
    """The exponent lies between 1 / (1 + gamma) and 1 + gamma."""
    resolution_probability: Fraction = 0.1
    """Share of patches that have each of the next two changes."""
    blur_voxels: Amount = 1.0
    """Largest standard deviation of the blur."""
    low_resolution: Amount = 1.0
    """The patch is sampled as if voxels were longer by up to this fraction, and back: 1
    samples at half the resolution at most.
    """

    @model_validator(mode="after")
    def _is_consistent(self) -> AugmentationConfig:
        if self.zoom[0] > self.zoom[1]:
            raise ValueError("zoom: the first value may not exceed the second")
        if len(set(self.flip_axes)) != len(self.flip_axes):
            raise ValueError("flip_axes: name each axis once")
        return self


class OptimizerConfig(StrictModel):
    """How the weights follow the gradients."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """``adamw``: weight decay apart from the gradient; ``sgd``: with Nesterov momentum."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """What the schedule starts from."""
    weight_decay: Amount = 0.0
    """L2 penalty; of ``adamw``, the share that weights lose per unit of learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of ``sgd``."""
    schedule: Literal["constant", "cosine", "poly", "step", "plateau"] = "constant"
    """Of the learning rate. ``cosine`` and ``poly`` (exponent 0.9, nnU-Net's) lead to 0 at the last
    step; ``step``: times ``factor`` every ``step_epochs``; ``plateau``: times ``factor`` after
    ``patience_epochs`` without a better validation.
    """
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of ``step`` and ``plateau``."""
    step_epochs: Size = 250
    """Of ``step``."""
    patience_epochs: Size = 50
    """Of ``plateau``."""
    lowest_rate: Amount = 0.0
    """Of ``plateau``: the learning rate falls no further."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the learning rate rises to its value (not with ``plateau``)."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients are scaled down to this norm."""
    accumulate: Size = 1
    """Batches whose gradients make one step."""

    @model_validator(mode="after")
    def _warmup_has_an_end(self) -> OptimizerConfig:
        if self.lowest_rate > self.learning_rate:
            raise ValueError(f"lowest_rate: at most learning_rate ({self.learning_rate:g})")
        if self.warmup_epochs and self.schedule == "plateau":
            raise ValueError("warmup_epochs: not with schedule plateau, which follows the validation alone")
        return self


class FirstStage(StrictModel):
    """In the first ``epochs``, only these ``parts`` of the network train: gates first, then all."""

    epochs: Size
    """How many epochs, from the first."""
    parts: Annotated[tuple[str, ...], Field(min_length=1)] = ("gates", "gating")
    """Top-level parts of the network that train alone."""


class TrainingConfig(StrictModel):
    """How the network's weights are found."""

    seed: int = 0
    """Of the weights and every random choice."""
    patch_size: tuple[Size, Size, Size] = (96, 96, 64)
    """Voxels of the working grid along R, A and S. A patch's centre lies in each class of its
    case equally often.
    """
    batch_size: Size = 2
    """Patches per batch."""
    epochs: Size = 300
    """A multiple of ``validate_every``."""
    batches_per_epoch: Size = 100
    """Batches that make an epoch."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How the weights follow the gradients."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep the exponential moving average of the weights, each step counting 1
    minus this.
    """
    early_stopping_epochs: Size | None = None
    """Stop after so many epochs without a better validation."""
    best_by: Literal["dsc", "loss"] = "dsc"
    """What makes a validation better, for the model kept, ``plateau`` and early stopping: a higher
    mean DSC, or a lower mean loss of the whole volumes.
    """
    validate_every: Size = 10
    """Epochs between validations on whole volumes."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto`` takes bf16 where the processor computes in it, else fp32; ``fp16``, with loss scaling, is
    for GPUs without bf16.
    """
    sync_batch_norm: bool = True
    """Where several processes train (GPUs only), batch normalisation is over the patches of all of them."""
    freeze: tuple[str, ...] = ()
    """Parts of the network that keep the weights they start with, batch statistics too, such as
    ``resnet`` or ``encoder.0``.
    """
    first_stage: FirstStage | None = None
    """Parts that train alone at first."""
    attention_epochs: tuple[Size, ...] = (3, 6, 10, 60, 150)
    """After which epochs (counted from 1; the last always) the gates' coefficients on a fixed
    validation slice are kept for the run's report.
    """
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that draw patches; 0 draws them in the training process."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to patches."""

    @property
    def monitored(self) -> tuple[str, Literal["min", "max"]]:
        """The number that says which validation is better, and whether it is to be small or large."""
        return ("dsc", "max") if self.best_by == "dsc" else ("validation_loss", "min")

    @model_validator(mode="after")
    def _epochs_fit(self) -> TrainingConfig:
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError(f"optimizer.warmup_epochs: fewer than epochs ({self.epochs})")
        if self.epochs % self.validate_every:
            raise ValueError(
                f"epochs ({self.epochs}) must be a multiple of validate_every ({self.validate_every}), "
                "so that the last epoch is validated"
            )
        return self


class InferenceConfig(StrictModel):
    """How a whole volume is predicted: in patches of the training's size, blended with a Gaussian weight."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of neighbouring patches, as a fraction of their side."""
    precision: Precision = "auto"
    """As in training."""
    mirroring: bool = False
    """Average with copies mirrored along R, A and S, the codes of paired organs swapped back; eight times
    the work."""


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

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if not self.targets:
            raise ValueError("targets: name at least one")
        _ = self.label_scheme  # raises when targets are not disjoint unions of known organs
        if "R" in self.training.augmentation.flip_axes:
            try:
                mirrored_codes(self.label_scheme)
            except ValueError as error:
                raise ValueError(f"training.augmentation.flip_axes: no R, for {error}") from error
        self._require_volumes_or_slices()
        patch = self.training.patch_size
        axes = self.slices.order[:2] if self.slices else (0, 1, 2)
        try:
            self.network.require_size(tuple(patch[axis] for axis in axes))
        except ValueError as error:
            raise ValueError(f"training.patch_size: for this network {error}") from error
        return self

    def _require_volumes_or_slices(self) -> None:
        """Raise :class:`ValueError` where a 2D network has no slices, or slices no 2D network."""
        across = None if self.slices is None else self.slices.axis
        if across is None and self.network.dims != 3:
            raise ValueError(
                "network.dims: a network of 2 dimensions sees slices: add a section slices, or take dims 3"
            )
        if across is not None and self.network.dims != 2:
            raise ValueError("network.dims: slices need a network with dims: 2")
        for axis, step in enumerate(self.preprocessing.spacing_mm):
            if (step is None) != (axis == across):
                expected = "null, for the axis across slices" if axis == across else "a number"
                raise ValueError(f"preprocessing.spacing_mm: expected {expected}, along {'RAS'[axis]}")

    @property
    def label_scheme(self) -> LabelScheme:
        """The codes of what this recipe's network predicts."""
        return LabelScheme.from_targets(self.targets)

    @property
    def n_classes(self) -> int:
        """The targets and background."""
        return len(self.targets) + 1

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
        fields = yaml.safe_load(text)
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
        place = error.errors(include_url=False)[0]["loc"]
        raise UserError(
            _locate(text, place, source),
            expected="a recipe's fields",
            found=describe_validation_error(error),
            remedy="mend it there or in --set (docs/recipe-reference.md lists the fields)",
        ) from error


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write every field of ``recipe``, defaults included, as YAML that reads back to it."""
    fields = recipe.model_dump(mode="json")
    atomic.write_text(path, yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))


def _apply(fields: dict[str, Any], override: str) -> None:
    """Set ``a.b`` to ``v`` in nested ``fields`` for the override ``a.b=v``."""
    key, equals, value = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise UserError(
            f"--set {override}", expected="section.field=value", found="something else", remedy="mend it"
        )
    place = fields
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(
                f"--set {override}",
                expected="a section before the dot",
                found=f"the field {section}",
                remedy="mend it",
            )
        place = inner
    try:
        place[last] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        raise UserError(
            f"--set {override}", expected="a YAML value behind =", found=str(error), remedy="quote or mend it"
        ) from error


def _locate(text: str, place: tuple[int | str, ...], source: str) -> str:
    """``source:line`` of the YAML node at ``place``, as deep as the text has it."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if found is None:
                continue  # the tag of a union, or a field that is missing
            line, node = found[0].start_mark.line + 1, found[1]
    return source if line is None else f"{source}:{line}"
