"""What a recipe says of a network: the configs of all kinds. No network is needed to read them."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from ct_attn.network.levels import Count, Dims, LevelsConfig, SizedConfig

GateActivation = Literal["sigmoid", "softmax", "none"]
Depth = Literal[18, 34, 50, 101, 152]
Shortcut = Literal["convolution", "padding"]

STAGE_WIDTHS = (64, 128, 256, 512)


def encoder_widths(depth: Depth) -> tuple[int, ...]:
    """Channels of the stem and the four stages; from depth 50 on the stages are four times wider."""
    wider = 1 if depth < 50 else 4
    return (STAGE_WIDTHS[0], *(wider * width for width in STAGE_WIDTHS))


class UNetConfig(LevelsConfig):
    """A U-Net with plain skip connections."""

    kind: Literal["unet"] = "unet"


class GatesConfig(LevelsConfig):
    """Which skips pass additive gates, and what the gates are like."""

    gated_skips: tuple[int, ...] | None = None
    """Levels whose skip is gated, 0 the finest; null: all but the finest, for which there must
    be at least three levels.
    """
    gates_per_skip: Literal[1, 2] = 1
    """2 are concatenated and combined ("multi")."""
    gate_activation: GateActivation = "sigmoid"
    """``softmax`` is over the gate's grid, where alpha then sums to 1."""
    gate_grid: Literal["coarse", "skip"] = "coarse"
    """Where alpha is computed: one level below the skip, or on its own grid (theta is then 1x1x1)."""
    gating_signal: Literal["per_level", "shared"] = "per_level"
    """``per_level``: the deepest gate takes a 1x1x1 convolution of the center, a shallower one
    the decoder's features one level below. ``shared``: all take one 1x1x1 convolution of the
    center, narrowed to the next finer level's width (the authors' first release).
    """
    gate_init: Literal["released", "pass_through"] = "released"
    """``pass_through``: alpha starts at 0.953 everywhere (sigmoid only)."""
    highway: bool = False
    """A learnt share of each gated skip goes around its gate."""

    @model_validator(mode="after")
    def _gates_fit(self) -> GatesConfig:
        deepest = len(self.widths) - 2
        gated = self.gated_levels
        if not gated:
            raise ValueError("no skip is gated: give widths at least 3 items, or name levels in gated_skips")
        if min(gated) < 0 or max(gated) > deepest or len(set(gated)) < len(gated):
            raise ValueError(
                f"gated_skips: expected levels from 0 to {deepest}, each once, got {self.gated_skips}"
            )
        if self.gate_init == "pass_through" and self.gate_activation != "sigmoid":
            raise ValueError("gate_init: pass_through needs gate_activation sigmoid")
        return self

    @property
    def gated_levels(self) -> tuple[int, ...]:
        """The levels whose skips are gated, finest first."""
        if self.gated_skips is None:
            return tuple(range(1, len(self.widths) - 1))
        return tuple(sorted(self.gated_skips))

    @property
    def depends_on_window(self) -> bool:
        return super().depends_on_window or self.gate_activation == "softmax"


class AttentionUNetConfig(GatesConfig):
    """A U-Net in which skips pass additive gates; by default the released single-gate network."""

    kind: Literal["attention_unet"] = "attention_unet"


class ResNetAttentionUNetConfig(GatesConfig):
    """An Attention U-Net whose levels below the finest are a ResNet's feature maps.

    ``widths`` follow from depth and finest width and need not be given; every pooling is 2.
    Norm and activation are the decoder's; the ResNet has batch normalisation and ReLU.
    """

    kind: Literal["resnet_attention_unet"] = "resnet_attention_unet"
    depth: Depth = 18
    """Of the ResNet."""
    finest_width: Count = 16
    """Channels of the plain level at full resolution, which the ResNet does not have."""
    shortcut: Shortcut = "convolution"
    """How the ResNet goes around a stage that changes size: a 1x1x1 convolution, or padding with
    empty channels (MedicalNet's 18 and 34).
    """

    @model_validator(mode="before")
    @classmethod
    def _widths_follow(cls, fields: Any) -> Any:
        depth: Any = fields.get("depth", 18) if isinstance(fields, dict) else None
        if depth not in get_args(Depth):
            return fields  # what is wrong with it is said below
        widths = (fields.get("finest_width", 16), *encoder_widths(depth))
        if tuple(fields.get("widths", widths)) != widths:
            raise ValueError(
                f"widths: a ResNet of depth {depth} fixes them to {list(widths)}; leave them out"
            )
        return {**fields, "widths": widths}

    @model_validator(mode="after")
    def _poolings_are_the_resnets(self) -> ResNetAttentionUNetConfig:
        if any(side != 2 for sides in self.pool_sizes for side in sides):
            raise ValueError("pool_size: a ResNet halves every axis at every level; leave it out")
        return self


#: The grid all stages of guided attention are brought to has this fraction of the image's sides.
_STRIDE = 4


class GuidedAttentionConfig(SizedConfig):
    """Multi-scale guided attention on a ResNet of ``depth``, for volumes or slices (``dims``)."""

    kind: Literal["guided_attention"] = "guided_attention"
    dims: Dims = 3
    """3 for volumes, 2 for slices."""
    depth: Depth = 18
    """Of the ResNet."""
    width: Annotated[int, Field(ge=8)] = 64
    """Channels every stage is brought to; the published 64."""
    guided_weight: Annotated[float, Field(ge=0)] = 0.25
    """What the distance between the two refinements' codes counts in the loss."""
    reconstruction_weight: Annotated[float, Field(ge=0)] = 0.1
    """What the autoencoders' errors count."""
    max_positions: Count = 32768
    """Voxels of the attention's grid (a quarter of the patch along every axis) above which a
    patch is refused: time grows with their square, memory with their number only, since the
    matrix of all pairs is never held.
    """

    @property
    def size_multiple(self) -> tuple[int, ...]:
        return (32,) * self.dims

    def require_size(self, size: tuple[int, ...]) -> None:
        super().require_size(size)
        require_positions(tuple(side // _STRIDE for side in size), self.max_positions)


def require_positions(grid: tuple[int, ...], bound: int) -> None:
    """Raise :class:`ValueError` where attention between all pairs of ``grid`` would take too long."""
    if prod(grid) > bound:
        raise ValueError(
            f"position attention compares every two of {prod(grid)} positions ({grid}), more than "
            f"max_positions ({bound}): take a smaller patch, or raise network.max_positions"
        )


class MonaiAttentionUNetConfig(SizedConfig):
    """MONAI's network: its own layers at these widths, finest first, halved between levels."""

    kind: Literal["monai_attention_unet"] = "monai_attention_unet"
    widths: Annotated[tuple[Count, ...], Field(min_length=2)] = (16, 32, 64, 128, 256)
    """Channels from the finest level to the coarsest."""
    dims: Dims = 3
    """3 for volumes, 2 for slices."""

    @property
    def size_multiple(self) -> tuple[int, ...]:
        """What every side of a patch must be a multiple of, per axis."""
        return (2 ** (len(self.widths) - 1),) * self.dims


AnyNetworkConfig = (
    AttentionUNetConfig
    | UNetConfig
    | ResNetAttentionUNetConfig
    | GuidedAttentionConfig
    | MonaiAttentionUNetConfig
)
NetworkConfig = Annotated[AnyNetworkConfig, Field(discriminator="kind")]
