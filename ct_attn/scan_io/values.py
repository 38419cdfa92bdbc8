"""Stored numbers, read block by block: no more than the header promises, no less.

What a reader holds at a time is the array it returns and one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.scan_io.limits import ByteStream
from ct_attn.volume import Shape3, Volume

HuArray = NDArray[np.int16] | NDArray[np.float32]

_BLOCK_BYTES = 1 << 19
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredVolume:
    """``volume`` as its file says, and whether the file keeps 8 bits of each number and no scale."""

    volume: Volume
    eight_bit: bool


def read_blocks(stream: ByteStream, count: int, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """``count`` numbers of ``dtype`` from ``stream``, in order, and the stream's end.

    Raises ``ValueError`` when the stream holds fewer or more.
    """
    left = count * dtype.itemsize
    while left:
        data = _read_all(stream, min(left, _BLOCK_BYTES))
        left -= len(data)
        yield np.frombuffer(data, dtype=dtype)
    if stream.read(1):  # a packed stream compares its checksum here
        raise ValueError(f"more than the {count:,} numbers its header promises")


def _read_all(stream: ByteStream, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            raise ValueError("fewer numbers than its header promises")
        data += piece
    return data


def scaled(block: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """``block`` * slope + intercept: float64 of integers, float32 of floats."""
    if (slope, intercept) == (1, 0):
        return block.astype(np.float32) if block.dtype.kind == "f" else block
    values = block.astype(np.float64) * slope + intercept
    return values.astype(np.float32) if block.dtype.kind == "f" else values


def gather(blocks: Iterable[NDArray[Any]], shape: Shape3) -> HuArray:
    """The numbers of ``blocks`` as [I, J, K], of which the first index runs fastest in the blocks.

    int16 where all are integers (or float64 that are whole) and fit; else float32.
    """
    flat: HuArray = np.empty(prod(shape), dtype=np.int16)
    start = 0
    for block in blocks:
        if flat.dtype == np.int16 and not _fits_int16(block):
            flat = flat.astype(np.float32)
        flat[start : start + block.size] = block
        start += block.size
    return flat.reshape(shape, order="F")


def read_hu(
    stream: ByteStream, shape: Shape3, dtype: np.dtype[Any], *, slope: float = 1, intercept: float = 0
) -> HuArray:
    """The array [I, J, K] that ``stream`` holds, first index fastest; see :func:`gather`."""
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused later
        blocks = read_blocks(stream, prod(shape), dtype)
        return gather((scaled(block, slope, intercept) for block in blocks), shape)


def require_finite(hu: HuArray, path: Path) -> None:
    """Raise :class:`UserError`, with the count, when ``hu`` holds NaN or infinity."""
    if hu.dtype != np.float32:
        return
    count = sum(int(plane.size - np.isfinite(plane).sum()) for plane in hu.T)  # no second array
    if count:
        raise UserError(
            path, expected="finite HU", found=f"{count} voxels of NaN or infinity", remedy="mend the scan"
        )


def _fits_int16(block: NDArray[Any]) -> bool:
    if block.dtype == np.float32 or block.size == 0:
        return False
    fits = bool(block.min() >= _INT16.min and block.max() <= _INT16.max)
    return fits and (block.dtype.kind in "iu" or np.array_equal(block, np.rint(block)))
