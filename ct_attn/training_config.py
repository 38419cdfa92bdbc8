"""What a recipe says of training: patches, their augmentation, how the weights follow the gradients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ct_attn.strict_model import FieldError, StrictModel

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
            raise FieldError("zoom", "the first value may not exceed the second")
        if len(set(self.flip_axes)) != len(self.flip_axes):
            raise FieldError("flip_axes", "name each axis once")
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
            raise FieldError(
                "lowest_rate", f"at most learning_rate ({self.learning_rate:g})", related=("learning_rate",)
            )
        if self.warmup_epochs and self.schedule == "plateau":
            raise FieldError("warmup_epochs", "not with schedule plateau, which follows the validation alone")
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
    """Voxels of the working grid along R, A and S."""
    patch_centres: Literal["classes", "anywhere"] = "classes"
    """Where patches are drawn: with their centre in each class of the case equally often, background
    included, so that organs are seen often; or ``anywhere`` in the scan, every position as likely as
    any other (the authors').
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
            raise FieldError("optimizer.warmup_epochs", f"fewer than epochs ({self.epochs})")
        if self.epochs % self.validate_every:
            raise FieldError(
                "epochs",
                f"{self.epochs} must be a multiple of validate_every ({self.validate_every}), "
                "so that the last epoch is validated",
                related=("validate_every",),
            )
        return self
