"""What all U-Nets here have in common in their configs: the levels and their layers."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ct_attn.strict_model import WHOLE, FieldError, StrictModel

if TYPE_CHECKING:
    from ct_attn.network.blocks import Layers

Dims = Annotated[Literal[2, 3], WHOLE]
Norm = Literal["batch", "instance", "group"]
Activation = Literal["relu", "leaky_relu"]

Count = Annotated[int, Field(ge=1)]
Axes = tuple[int, ...]
PerLevel = Count | tuple[Count, ...] | tuple[tuple[Count, ...], ...]


class SizedConfig(StrictModel):
    """A network's config that knows which patches the network takes."""

    @property
    def size_multiple(self) -> Axes:
        """What every side of a patch must be a multiple of, per axis."""
        raise NotImplementedError

    @property
    def depends_on_window(self) -> bool:
        """Whether what the network says of a voxel depends on the whole window around it.

        So it does where statistics over the window are part of it. Other networks only see
        a neighbourhood, apart from the zeros beyond the window's border.
        """
        return True

    def require_size(self, size: tuple[int, ...]) -> None:
        """Raise :class:`ValueError` where the network cannot take patches of ``size``."""
        require_multiple(size, self.size_multiple)


class LevelsConfig(SizedConfig):
    """The levels of a U-Net and the layers they are made of."""

    widths: Annotated[tuple[Count, ...], Field(min_length=2)] = (16, 32, 64, 128, 256)
    """Channels from the finest level (level 0) to the coarsest (the center)."""
    dims: Dims = 3
    """3 for volumes, 2 for slices (with a section ``slices``)."""
    kernel_size: PerLevel = 3
    """Of the convolutions, odd: one number for every axis, one per axis (``[3, 3, 1]``, published
    for thick slices), or one list of those per level, finest first.
    """
    pool_size: PerLevel = 2
    """Between the levels, written likewise, one list per pooling. The sides of a patch are
    multiples of their product along each axis.
    """
    norm: Norm = "batch"
    """Of every convolution; ``group``: eight groups, or as many as divide the channels and eight."""
    norm_bias: bool = True
    """Whether a convolution before a normalisation has a bias."""
    decoder_norm: Literal["same", "none"] = "same"
    """``none``: the decoder's convolutions have a bias and no normalisation."""
    activation: Activation = "relu"
    """Of every convolution."""
    negative_slope: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Of ``leaky_relu``, below 0."""
    upsampling: Literal["linear", "transposed", "overlapping"] = "linear"
    """Bi- or trilinear, or a transposed convolution with the pooling's kernel and stride, which
    also narrows the features to the width of the level they reach; ``overlapping``: the same
    with twice the stride as kernel.
    """
    align_corners: bool = False
    """Whether corner voxels line up in linear resampling; switching it changes what trained
    weights predict.
    """
    deep_supervision: Literal["fused", "per_scale", "stages", "none"] = "fused"
    """``fused`` makes one prediction from the class maps of all scales, as released.
    ``per_scale`` predicts from the finest features and in training compares every scale but
    the coarsest decoder level's with the labels at its own size, each counting half of the
    next finer one, as nnU-Net does. ``stages`` does so for the output of every stage, encoder
    and center included. ``none`` predicts from the finest features and compares nothing else.
    """
    head: Literal["pointwise", "in_level"] = "pointwise"
    """A 1x1x1 convolution of the finest features, or the second convolution of the finest decoder
    level, which then ends in the classes itself.
    """
    checkpointing: bool = False
    """In training, keep only what goes into and comes out of each level and compute the rest
    again for the gradients: same numbers, more time, a quarter of the memory for activations.
    """

    @model_validator(mode="after")
    def _sizes_fit_the_levels(self) -> LevelsConfig:
        _ = self.pool_sizes  # raises where their number is wrong
        if any(side % 2 == 0 for sides in self.kernel_sizes for side in sides):
            raise FieldError(
                "kernel_size", f"every side must be odd to keep the grid, got {self.kernel_size}"
            )
        if self.upsampling == "overlapping" and any(
            side > 1 and side % 2 for sides in self.pool_sizes for side in sides
        ):
            raise FieldError("upsampling", f"overlapping needs poolings by 1 or even, got {self.pool_size}")
        if self.head == "in_level" and self.deep_supervision == "fused":
            raise FieldError("head", "in_level leaves no class maps to fuse; set another deep_supervision")
        return self

    @property
    def kernel_sizes(self) -> tuple[Axes, ...]:
        """The convolutions' kernel of every level, the center's last."""
        return per_level(self.kernel_size, levels=len(self.widths), dims=self.dims, field="kernel_size")

    @property
    def pool_sizes(self) -> tuple[Axes, ...]:
        """The pooling below every level but the center."""
        return per_level(self.pool_size, levels=len(self.widths) - 1, dims=self.dims, field="pool_size")

    @property
    def size_multiple(self) -> Axes:
        """What every side of a patch must be a multiple of, per axis."""
        return tuple(prod(sides) for sides in zip(*self.pool_sizes, strict=True))

    @property
    def depends_on_window(self) -> bool:
        return self.norm != "batch"

    @property
    def supervised_levels(self) -> int:
        """How many decoder levels, from the finest, have a class map of their own."""
        decoder_levels = len(self.widths) - 1
        return {
            "fused": decoder_levels,
            "per_scale": max(1, decoder_levels - 1),
            "stages": decoder_levels,
            "none": 1,
        }[self.deep_supervision]

    @property
    def layers(self) -> Layers:
        from ct_attn.network.blocks import Layers  # noqa: PLC0415 # torch; a recipe is read without

        return Layers(
            dims=self.dims,
            norm=self.norm,
            norm_bias=self.norm_bias,
            activation=self.activation,
            negative_slope=self.negative_slope,
            align_corners=self.align_corners,
        )


def per_level(value: PerLevel, *, levels: int, dims: int, field: str) -> tuple[Axes, ...]:
    """``value`` written out: for each of ``levels`` one number along each of ``dims`` axes.

    Raises :class:`ValueError` naming ``field`` where the numbers do not fit.
    """
    if isinstance(value, int):
        return ((value,) * dims,) * levels
    alike = tuple(entry for entry in value if isinstance(entry, int))
    rows = tuple(entry for entry in value if isinstance(entry, tuple)) or (alike,) * levels
    if len(rows) != levels or any(len(row) != dims for row in rows):
        raise FieldError(
            field,
            f"expected one number, {dims} numbers (one per axis) or {levels} lists of {dims}, got {value}",
        )
    return rows


def require_multiple(size: tuple[int, ...], multiple: Axes) -> None:
    """Raise :class:`ValueError` where a patch of ``size`` cannot be pooled and come back the same."""
    if len(size) != len(multiple):
        raise ValueError(f"a patch must have {len(multiple)} sides, got {size}")
    if any(side % step for side, step in zip(size, multiple, strict=True)):
        wanted = multiple[0] if len(set(multiple)) == 1 else multiple
        raise ValueError(f"every side of a patch must be a multiple of {wanted}, got {size}")
