"""How much memory a prediction takes, before it is begun."""

from __future__ import annotations

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

_BYTES: dict[Format, int] = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes a prediction takes: whatever the windows, and for each voxel of a window."""

    fixed: int
    per_window_voxel: int

    def of(self, window_voxels: int) -> int:
        return self.fixed + self.per_window_voxel * window_voxels

    def windows_within(self, memory_bytes: int | None, smallest: Shape3) -> int:
        """How many voxels a window may have.

        Raises :class:`UserError` when not even windows of ``smallest`` voxels fit.
        """
        if memory_bytes is None:
            return MOST_WINDOW_VOXELS
        voxels = (memory_bytes - self.fixed) // self.per_window_voxel
        if voxels < prod(smallest):
            raise UserError(
                f"--memory {_text(memory_bytes)}",
                expected=f"at least {_text(self.of(prod(smallest)))} for this scan and model",
                found="less",
                remedy="allow more, or cut the scan to the abdomen",
            )
        return voxels


def need(
    scan: Grid,
    working: Grid,
    network: AnyNetworkConfig,
    n_classes: int,
    precision: Format,
    *,
    joins_maps: bool,
) -> Need:
    """What predicting a scan on ``scan`` takes: int16 HU, mask, and the image on ``working``.

    ``precision`` and ``joins_maps`` are the backend's.
    """
    fixed = PROCESS_BYTES + 3 * prod(scan.shape) + 9 * prod(working.shape)
    layers = 4 * (_LAYERS * n_classes + 3)
    activations = activation_values(network, n_classes, joins_maps=joins_maps) * _BYTES[precision]
    return Need(fixed=fixed, per_window_voxel=activations + layers)


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
