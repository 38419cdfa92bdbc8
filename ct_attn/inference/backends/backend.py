"""What every backend is to the rest of inference."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Windows = NDArray[np.float32]
Format = Literal["fp32", "bf16", "fp16"]


class Backend(Protocol):
    """A network ready to compute batches of windows (or of slices, with two axes less one)."""

    @property
    def name(self) -> str:
        """The library and where it computes, such as ``openvino cpu``."""

    @property
    def precision(self) -> Format:
        """The number format of its convolutions."""

    @property
    def joins_maps(self) -> bool:
        """Whether maps that a convolution takes together are copied into one map first."""

    def logits(self, windows: Windows) -> Windows:
        """Float32 [B, n_classes, ...] of ``windows`` [B, in_channels, ...].

        Raises :class:`OutOfMemoryError` when the device is too small for them.
        """


class OutOfMemoryError(Exception):
    """The device is too small for the windows it was given."""


class CannotConvertError(Exception):
    """A network that a library cannot compute as torch does; the text says why."""
