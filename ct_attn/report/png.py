"""A small PNG for grey pictures with a few colours drawn on them.

CT noise in three equal channels makes a large file; a palette of greys, and of the
colours in their mixtures with grey, makes it a third of the size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

GREYS = 64
SHARES = (0.85, 0.65, 0.45, 0.25)  # of a colour in its mixtures with grey
BACKGROUNDS = 8


def palette_png(rgb: NDArray[np.uint8], colours: Sequence[str]) -> bytes:
    """``rgb`` [rows, columns, 3] as PNG, each pixel in the nearest colour of :func:`palette`."""
    return indexed_png(rgb, palette(colours))


def indexed_png(rgb: NDArray[np.uint8], colour_table: NDArray[np.uint8]) -> bytes:
    """The same in the nearest colours of ``colour_table`` [n <= 256, 3]."""
    packed = rgb.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    found, places = np.unique(packed, return_inverse=True)
    indices = _nearest(found, colour_table)[places].reshape(rgb.shape[:2])
    return _encode(indices, colour_table)


def palette(colours: Sequence[str]) -> NDArray[np.uint8]:
    """Greys from black to white, then each of up to five colours pure and mixed with grey; [n <= 256, 3]."""
    greys = np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1)
    backgrounds = np.repeat(np.linspace(0, 255, BACKGROUNDS)[:, None], 3, axis=1)
    table = [greys]
    for colour in colours:
        pure = 255 * np.array(to_rgb(colour))
        table += [pure[None], *(share * pure + (1 - share) * backgrounds for share in SHARES)]
    return np.concatenate(table).round().astype(np.uint8)


def _nearest(packed: NDArray[np.uint32], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """For each 0xRRGGBB the index of the colour nearest to it."""
    wanted = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.float32)
    known = table.astype(np.float32)
    distance = (known**2).sum(axis=1) - 2 * wanted @ known.T  # save a term that is the same for all colours
    return np.asarray(distance.argmin(axis=1), dtype=np.uint8)


def _encode(indices: NDArray[np.uint8], table: NDArray[np.uint8]) -> bytes:
    rows, columns = indices.shape
    steps = np.diff(indices, axis=1, prepend=np.uint8(0))
    filtered = np.pad(steps, ((0, 0), (1, 0)), constant_values=1)  # a row begins with its filter: 1, steps
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">2I5B", columns, rows, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", table.tobytes()),
            _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
