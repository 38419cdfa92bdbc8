"""What any scan file must keep to, judged from its header before anything is allocated."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.scan_io.options import OnNote, ReadingOptions
from ct_attn.volume import Grid, Shape3

#: Finer than any micro-CT of a patient, coarser than any slice: outside it the unit is wrong.
LEAST_SPACING_MM, MOST_SPACING_MM = 0.05, 20.0

#: Deflate's format cannot pack a run tighter than 258 bytes in two bits.
_MOST_DEFLATION = 1032


@contextmanager
def refusing_damage(path: Path, kind: str) -> Iterator[None]:
    """Turn what libraries raise on a bad file of ``kind`` into one clear line."""
    try:
        yield
    except MemoryError as error:
        raise UserError(
            path, expected="a scan that fits into memory", found="a larger one", remedy="crop it"
        ) from error
    except (OSError, EOFError, ArithmeticError, LookupError, TypeError, ValueError, zlib.error) as error:
        raise UserError(
            path,
            expected=f"a whole {kind} file",
            found=f"a damaged one ({error})",
            remedy="copy it again from its source",
        ) from error


def require_file(path: Path, kind: str) -> None:
    """Raise :class:`UserError` unless ``path`` is a file with something in it; a pipe would block."""
    if path.is_dir():
        found, remedy = "a folder", "name a file inside it"
    elif not path.exists():
        found, remedy = "no such file", "check the path"
    elif not path.is_file():
        found, remedy = "no regular file", "name a file"
    elif path.stat().st_size == 0:
        found, remedy = "an empty file", "copy it again from its source"
    else:
        return
    raise UserError(path, expected=f"a {kind} file", found=found, remedy=remedy)


def require_real_numbers(dtype: np.dtype[Any], path: Path) -> None:
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(path, expected="real numbers", found=str(dtype), remedy="convert the voxel type")


def one_volume(dims: Sequence[int], path: Path, on_note: OnNote) -> Shape3:
    """The three sizes in ``dims``, whose others must be 1."""
    sizes = tuple(int(size) for size in dims)
    if len(sizes) < 3 or min(sizes) < 1 or max(sizes[3:], default=1) > 1:
        raise UserError(
            path,
            expected="one 3D volume",
            found=f"an array of shape {sizes}",
            remedy="extract one volume" if len(sizes) > 3 else "give a whole scan, not a picture",
        )
    if len(sizes) > 3:
        on_note(f"It is {len(sizes)}D with one volume; that volume was taken.")
    return sizes[0], sizes[1], sizes[2]


def require_allowed_size(shape: Sequence[int], options: ReadingOptions, subject: Path) -> None:
    """Raise :class:`UserError` when ``shape`` has more voxels than ``options`` allow."""
    if prod(shape) > options.max_voxels:
        raise UserError(
            subject,
            expected=f"at most {options.max_voxels:,} voxels",
            found=f"{' x '.join(map(str, shape))} in the header",
            remedy="if that is true, allow more with --max-voxels",
        )


def require_stored_size(path: Path, promised_bytes: int, *, packed: bool) -> None:
    """Raise :class:`UserError` when ``path`` cannot hold what its header promises, or holds more.

    Of a packed file only the least size is known before it is unpacked.
    """
    stored_bytes = path.stat().st_size
    least = promised_bytes / _MOST_DEFLATION if packed else promised_bytes
    if stored_bytes < least or (stored_bytes > promised_bytes and not packed):
        raise UserError(
            path,
            expected=f"{promised_bytes:,} bytes, as its header says",
            found=f"{stored_bytes:,}" + (" packed ones" if packed else ""),
            remedy="copy it again from its source",
        )


def checked_grid(shape: Shape3, affine: NDArray[np.float64], path: Path, *, remedy: str) -> Grid:
    """The grid, when its affine is finite, invertible and has spacings of a scan."""
    try:
        grid = Grid(shape=shape, affine=affine)
    except ValueError as error:
        raise UserError(path, expected="an invertible affine", found=str(error), remedy=remedy) from error
    if not all(LEAST_SPACING_MM <= step <= MOST_SPACING_MM for step in grid.spacing_mm):
        steps = " x ".join(f"{step:.3g}" for step in grid.spacing_mm)
        raise UserError(
            path,
            expected=f"a spacing of {LEAST_SPACING_MM:g} to {MOST_SPACING_MM:g} mm",
            found=f"{steps} mm",
            remedy=remedy,
        )
    return grid


class ByteStream(Protocol):
    """All that readers need of an open file, packed or not."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end."""


def unpacked(stream: BinaryIO, packing: str) -> ByteStream:
    """``stream`` from where it stands on, unpacked: ``raw``, ``gzip``, ``bzip2`` or ``zlib``."""
    if packing == "gzip":
        return gzip.GzipFile(fileobj=stream)
    if packing == "bzip2":
        return bz2.BZ2File(stream)
    return _Inflated(stream) if packing == "zlib" else stream


class _Inflated:
    """A zlib stream (RFC 1950) read piece by piece; the standard library only has gzip's."""

    def __init__(self, packed: ByteStream) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end of the stream, whose checksum is then compared."""
        while not self._inflate.eof:
            piece = self._inflate.unconsumed_tail or self._packed.read(1 << 16)
            if not piece:
                raise EOFError("the packed stream ends too early")
            out = self._inflate.decompress(piece, size)
            if out:
                return out
        if self._inflate.unused_data or self._packed.read(1):
            raise ValueError("more bytes than the packed stream has")
        return b""
