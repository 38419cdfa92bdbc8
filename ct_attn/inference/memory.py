"""How much memory a prediction takes, before it is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ct_attn.errors import UserError
from ct_attn.inference.backends.backend import Format
from ct_attn.inference.windows import WindowPlan
from ct_attn.network.configs import AnyNetworkConfig
from ct_attn.network.levels import LevelsConfig
from ct_attn.volume import Grid, Shape3

#: Of the interpreter, its libraries and a network's weights, before any scan is read.
PROCESS_BYTES = 260 << 20

#: A window holds at most this many voxels unless the user allows more memory: enough to cover
#: the plane of a body, and the same on every machine, since masks depend on it a little.
MOST_WINDOW_VOXELS = 4_300_000

#: Logits, their sums and what is being restored: arrays of one layer of windows per class.
_LAYERS = 3

#: Of the votes for a class: :class:`ct_attn.inference.agreement.Agreement`.
_VOTE_BYTES = 2

_BYTES: dict[Format, int] = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes a prediction takes: whatever the windows, for each voxel of one, and of a layer of them."""

    fixed: int
    per_window_voxel: int
    per_layer_voxel: int

    def of(self, size: Shape3, box: Shape3) -> int:
        """What windows of ``size`` take that cover ``box``, blended along the last axis."""
        layer = prod(map(max, box[:2], size[:2])) * size[2]
        return self.fixed + self.per_window_voxel * prod(size) + self.per_layer_voxel * layer


def require_memory(taken: int, memory_bytes: int | None) -> None:
    """Raise :class:`UserError` when the least that can be, ``taken``, is more than ``memory_bytes``."""
    if memory_bytes is not None and taken > memory_bytes:
        raise UserError(
            f"--memory {_text(memory_bytes)}",
            expected=f"at least {-(-taken >> 20)} MiB for this scan and model",
            found="less",
            remedy="allow more, or cut the scan to the abdomen",
        )


def need(
    scan: Grid,
    working: Grid,
    networks: Sequence[AnyNetworkConfig],
    n_classes: int,
    precision: Format,
    *,
    joins_maps: bool,
) -> Need:
    """What predicting a scan on ``scan`` takes: int16 HU, mask, and the image on ``working``.

    Of several ``networks`` one computes at a time. ``precision`` and ``joins_maps`` are the backends'.
    """
    fixed = PROCESS_BYTES + 3 * prod(scan.shape) + 9 * prod(working.shape)
    layers = 4 * (_LAYERS * n_classes + 3) + _VOTE_BYTES * n_classes
    activations = _BYTES[precision] * max(
        activation_values(network, n_classes, joins_maps=joins_maps) for network in networks
    )
    return Need(fixed=fixed, per_window_voxel=activations, per_layer_voxel=layers)


def activation_values(network: AnyNetworkConfig, n_classes: int, *, joins_maps: bool) -> int:
    """Numbers a network holds at a time for each voxel of a window, about.

    The finest level of a U-Net holds its skip, what comes up, and what a convolution makes
    of them; coarser ones the same for fewer voxels. ``joins_maps``: first both are copied into one.
    """
    if not isinstance(network, LevelsConfig):
        return 400
    values, voxels = 2.0 * (n_classes + 1), 1.0
    for level, (width, below) in enumerate(zip(network.widths, network.widths[1:], strict=False)):
        values += ((4 if joins_maps else 2) * width + below) * voxels
        voxels /= prod(network.pool_sizes[level])
    return round(values)


def text_of(plan: WindowPlan, needed: int) -> str:
    """One line for people."""
    sides = " x ".join(map(str, plan.size))
    return f"{len(plan.starts)} windows of {sides} voxels; about {_text(needed)} of memory"


def _text(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
