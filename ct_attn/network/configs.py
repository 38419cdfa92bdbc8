"""What a recipe says of a network: the configs of all kinds. No network is needed to read them."""

from __future__ import annotations

from math import lcm, prod
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ct_attn.errors import UserError
from ct_attn.network.gate_form import GateActivation, GateForm, GatePart
from ct_attn.network.levels import Axes, Count, Dims, LevelsConfig, SizedConfig
from ct_attn.strict_model import WHOLE, FieldError, StrictModel

Depth = Literal[18, 34, 50, 101, 152]
Shortcut = Literal["convolution", "padding"]
ImageNorm = Literal["none", "imagenet"]
Plane = Literal["axial", "coronal", "sagittal"]

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
    gates_per_skip: Annotated[Literal[1, 2], WHOLE] = 1
    """2 are concatenated and combined ("multi")."""
    gate_activation: GateActivation = "sigmoid"
    """``softmax`` is over the gate's grid, where alpha then sums to 1."""
    gate_grid: Literal["coarse", "skip"] | tuple[Count, ...] = "coarse"
    """Where alpha is computed: one level below the skip, or on its own grid (theta is then
    1x1x1); or the block of skip voxels that makes one voxel of that grid, one number per axis:
    ``[2, 2, 2]`` where poolings are 2x2x1 (the authors' first class).
    """
    gate_theta: Literal["strided", "pooled"] = "strided"
    """How theta goes over those blocks: a convolution, or their maximum and then a 1x1x1 one."""
    gate_inner_share: Count = 1
    """The gate's intermediate channels are the skip's divided by this."""
    gate_norms: tuple[GatePart, ...] = ()
    """Which of theta, phi and psi a normalisation follows."""
    gate_coefficients: Literal["one", "per_channel", "raised"] = "one"
    """``one`` per voxel; ``per_channel``: psi has the skip's channels; ``raised``: one, brought to
    the skip's grid and channels by a transposed convolution.
    """
    gate_output: Literal["combined", "transformed", "plain"] = "combined"
    """Behind the gated skip: two 1x1x1 convolutions with normalisation as released, the first of
    them only, or nothing.
    """
    gating_signal: Literal["per_level", "below", "per_gate", "shared"] = "per_level"
    """``per_level``: the deepest gate takes a 1x1x1 convolution of the center, a shallower one
    the decoder's features one level below. ``below``: the center, too, is taken as it is.
    ``per_gate``: likewise, through a 1x1x1 convolution of each gate's own. ``shared``: all take
    one 1x1x1 convolution of the center, narrowed to the next finer level's width (the authors'
    first release).
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
            raise FieldError(
                "gated_skips", "no skip is gated: give widths at least 3 items, or name levels here",
                related=("widths",),
            )  # fmt: skip
        if min(gated) < 0 or max(gated) > deepest or len(set(gated)) < len(gated):
            raise FieldError(
                "gated_skips", f"expected levels from 0 to {deepest}, each once, got {self.gated_skips}"
            )
        if isinstance(self.gate_grid, tuple) and len(self.gate_grid) != self.dims:
            raise FieldError(
                "gate_grid", f"expected {self.dims} numbers (one per axis), got {self.gate_grid}"
            )
        if len(set(self.gate_norms)) < len(self.gate_norms):
            raise FieldError("gate_norms", "name each part once")
        if self.gates_per_skip == 2 and self.gate_output != "combined":
            raise FieldError("gate_output", "two gates per skip are combined; leave it out")
        if self.gate_init == "pass_through":
            self._gates_can_start_open()
        return self

    def _gates_can_start_open(self) -> None:
        if self.gate_activation != "sigmoid":
            raise FieldError("gate_init", "pass_through needs gate_activation sigmoid")
        if "psi" in self.gate_norms or self.gate_coefficients == "raised":
            raise FieldError(
                "gate_init", "pass_through needs psi without a norm, and coefficients not raised"
            )

    @property
    def gated_levels(self) -> tuple[int, ...]:
        """The levels whose skips are gated, finest first."""
        if self.gated_skips is None:
            return tuple(range(1, len(self.widths) - 1))
        return tuple(sorted(self.gated_skips))

    @property
    def size_multiple(self) -> Axes:
        """As the poolings ask for, and such that every gate's grid is of whole blocks."""
        multiple = super().size_multiple
        for level in self.gated_levels:
            above = [prod(sides) for sides in zip(*self.pool_sizes[:level], strict=True)] or [1] * self.dims
            blocks = [up * side for up, side in zip(above, self.gate_stride(level), strict=True)]
            multiple = tuple(lcm(*pair) for pair in zip(multiple, blocks, strict=True))
        return multiple

    def gate_stride(self, level: int) -> Axes:
        """The block of the skip's voxels that makes one voxel of the grid of the gate of ``level``."""
        if isinstance(self.gate_grid, tuple):
            return self.gate_grid
        return self.pool_sizes[level] if self.gate_grid == "coarse" else (1,) * self.dims

    def gate_form(self, level: int) -> GateForm:
        """What the gate of ``level`` is made of."""
        return GateForm(
            stride=self.gate_stride(level),
            theta=self.gate_theta,
            inner_share=self.gate_inner_share,
            norms=self.gate_norms,
            activation=self.gate_activation,
            coefficients=self.gate_coefficients,
            output=self.gate_output,
            own_signal=self.gating_signal == "per_gate",
        )

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
    depth: Annotated[Depth, WHOLE] = 18
    """Of the ResNet."""
    finest_width: Count = 16
    """Channels of the plain level at full resolution, which the ResNet does not have."""
    shortcut: Shortcut = "convolution"
    """How the ResNet goes around a stage that changes size: a 1x1x1 convolution, or padding with
    empty channels (MedicalNet's 18 and 34).
    """
    normalisation: ImageNorm = "none"
    """Of the image, 0 to 1, in front of the ResNet: ``imagenet`` for torchvision's weights, (x - mean)
    / std of red, green and blue for three neighbours, else 0.449 and 0.226 for all.
    """

    @model_validator(mode="before")
    @classmethod
    def _widths_follow(cls, fields: Any) -> Any:
        depth: Any = fields.get("depth", 18) if isinstance(fields, dict) else None
        if depth not in get_args(Depth):
            return fields  # what is wrong with it is said below
        widths = (fields.get("finest_width", 16), *encoder_widths(depth))
        given = fields.get("widths", widths)
        if not isinstance(given, list | tuple) or tuple(given) != widths:
            raise FieldError(
                "widths", f"a ResNet of depth {depth} fixes them to {list(widths)}; leave them out"
            )
        return {**fields, "widths": widths}

    @model_validator(mode="after")
    def _poolings_are_the_resnets(self) -> ResNetAttentionUNetConfig:
        if any(side != 2 for sides in self.pool_sizes for side in sides):
            raise FieldError("pool_size", "a ResNet halves every axis at every level; leave it out")
        return self


#: The grid all stages of guided attention are brought to has this fraction of the image's sides.
_STRIDE = 4


class GuidedAttentionConfig(SizedConfig):
    """Multi-scale guided attention on a ResNet of ``depth``, for volumes or slices (``dims``)."""

    kind: Literal["guided_attention"] = "guided_attention"
    dims: Dims = 3
    """3 for volumes, 2 for slices."""
    depth: Annotated[Depth, WHOLE] = 18
    """Of the ResNet."""
    normalisation: ImageNorm = "none"
    """Of the image, 0 to 1, in front of the ResNet: ``imagenet`` for torchvision's weights, (x - mean)
    / std of red, green and blue for three neighbours, else 0.449 and 0.226 for all.
    """
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

#: The kinds of networks that have attention gates.
GATED = tuple(
    config.model_fields["kind"].default for config in (AttentionUNetConfig, ResNetAttentionUNetConfig)
)


def without_gates(name: str, kind: str) -> UserError:
    """What to say when the gates of a network of ``kind`` are asked for, and it has none."""
    return UserError(
        name,
        expected="a network with attention gates",
        found=f"kind {kind}",
        remedy=f"give a model trained with kind {' or '.join(GATED)}",
    )


#: The axis (of R, A and S) across the slices of a plane.
_ACROSS: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


class SlicesConfig(StrictModel):
    """Slices of which plane a 2D network sees, and how many neighbours with each."""

    plane: Plane = "axial"
    """Slices lie in the plane of R and A (``axial``), R and S (``coronal``) or A and S (``sagittal``)."""
    neighbours: int = Field(default=1, ge=1)
    """Slices that are the network's channels, an odd number: 1 is the slice alone, 3 adds one on
    either side ("2.5D"). Beyond the scan's ends there are zeros.
    """
    at_a_time: int = Field(default=16, ge=1)
    """Slices that are predicted together at most: memory grows with this, the result does not change."""

    @field_validator("neighbours")
    @classmethod
    def _has_a_middle(cls, neighbours: int) -> int:
        if neighbours % 2 == 0:
            raise ValueError(
                f"expected an odd number, the slice and as many on either side, got {neighbours}"
            )
        return neighbours

    @property
    def axis(self) -> int:
        """The axis across the slices: 0 for R, 1 for A, 2 for S."""
        return _ACROSS[self.plane]

    @property
    def order(self) -> tuple[int, int, int]:
        """The axes of R, A and S: the two of the plane, then the one across."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second, self.axis

    @property
    def halo(self) -> int:
        """Neighbours on either side of a slice."""
        return self.neighbours // 2
