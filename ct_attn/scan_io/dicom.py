"""One CT series in a folder of DICOM files, read as a volume.

File names mean nothing here: what a file holds says where it belongs. A stack with a
missing, doubled, tilted or foreign slice is refused, since averaging the spacing over it
(as GDCM and MONAI do) moves organs. No message names a patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.config import disable_value_validation

from ct_attn.errors import UserError
from ct_attn.scan_io.dicom_fixes import (
    even_count,
    even_places_mm,
    move_upright,
    say_what_was_fixed,
    upright_frame,
)
from ct_attn.scan_io.dicom_geometry import (
    Stack,
    arrange,
    grid_of,
    regular_spacing_mm,
    require_alike,
    without_duplicates,
)
from ct_attn.scan_io.dicom_headers import read_headers, slice_of
from ct_attn.scan_io.dicom_pixels import hu_blocks, read_hu, require_decoder
from ct_attn.scan_io.dicom_series import choose_series
from ct_attn.scan_io.limits import require_allowed_size
from ct_attn.scan_io.options import AS_IT_IS, OnNote, ReadingOptions, no_note
from ct_attn.scan_io.values import gather, require_finite
from ct_attn.volume import Volume


@disable_value_validation()  # its warnings quote the file, patient and all
def read_series(folder: Path, options: ReadingOptions = AS_IT_IS, on_note: OnNote = no_note) -> Volume:
    """The CT whose slices are the DICOM files directly in ``folder``.

    ``hu`` is indexed [column, row, slice], slices along the normal of the image
    plane (an axial series comes out as LPS); int16 where every rescaled value is
    whole and fits, else float32. Files that aren't DICOM images are skipped.
    Raises :class:`UserError` when there is no DICOM file, no telling which of several
    series is the scan, not a plain CT, a slice is missing, doubled, tilted or unlike
    the others and ``options`` don't say to correct it, the header promises more voxels
    than they allow, or pixels are damaged or compressed in a way that no installed
    decoder reads. It names a file by its number in the folder: people call slices, too,
    after patients, and scanners after UIDs.
    """
    with _numbering_files(folder):
        return _read_series(folder, options, on_note)


@contextmanager
def _numbering_files(folder: Path) -> Iterator[None]:
    """Put a file's number in place of its name in what is said of it."""
    try:
        yield
    except UserError as error:
        files = [path for path in folder.iterdir() if path.is_file()]
        paths = [str(path) for path in sorted(files, key=lambda path: (path.name[0] == ".", path.name))]
        if error.subject not in paths:
            raise
        raise UserError(
            f"{folder}, file {paths.index(error.subject) + 1} of {len(paths)} by name",
            expected=error.expected,
            found=error.found,
            remedy=error.remedy,
        ) from error


def _read_series(folder: Path, options: ReadingOptions, on_note: OnNote) -> Volume:
    headers = choose_series(read_headers(folder), folder, options, on_note)
    slices = [slice_of(header, options) for header in headers]
    require_alike(slices, folder)
    require_allowed_size((*slices[0].shape, len(slices)), options, folder)
    require_decoder(slices, folder)
    stack = arrange(without_duplicates(slices, folder, on_note))
    spacing_mm = regular_spacing_mm(stack, folder, options)
    if spacing_mm is None:
        volume = _made_regular(stack, folder, options, on_note)
    else:
        grid = grid_of(stack.slices[0], len(stack.slices), spacing_mm, folder)
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused
            volume = Volume(hu=gather(hu_blocks(stack.slices), grid.shape), grid=grid)
    require_finite(volume.hu, folder)
    return volume


def _made_regular(stack: Stack, folder: Path, options: ReadingOptions, on_note: OnNote) -> Volume:
    frame, moves = upright_frame(stack)
    require_allowed_size((*frame.shape, even_count(stack)), options, folder)
    places_mm = even_places_mm(stack)
    grid = grid_of(frame, len(places_mm), float(places_mm[1]), folder)
    upright = _Upright(stack, frame.shape, moves)
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = (plane.reshape(-1) for plane in _interpolated(upright, stack.places_mm, places_mm))
        hu = gather(blocks, grid.shape)
    say_what_was_fixed(stack, places_mm, on_note)
    return Volume(hu=hu, grid=grid)


class _Upright:
    """Slices of ``stack`` moved upright, the last two of them kept: each is decoded once."""

    def __init__(self, stack: Stack, shape: tuple[int, int], moves: NDArray[np.float64]) -> None:
        self._stack, self._shape, self._moves = stack, shape, moves
        self._kept: dict[int, NDArray[np.float64]] = {}

    def __getitem__(self, index: int) -> NDArray[np.float64]:
        if index not in self._kept:
            self._kept = {kept: plane for kept, plane in self._kept.items() if kept >= index - 1}
            hu = read_hu(self._stack.slices[index])
            self._kept[index] = np.rint(move_upright(hu, self._shape, self._moves[index]))
        return self._kept[index]


def _interpolated(
    planes: _Upright, stated_mm: NDArray[np.float64], wanted_mm: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """The planes at ``wanted_mm``, linear between their neighbours in ``stated_mm``; whole HU."""
    below = np.clip(np.searchsorted(stated_mm, wanted_mm, side="right") - 1, 0, len(stated_mm) - 2)
    weights = np.clip((wanted_mm - stated_mm[below]) / np.diff(stated_mm)[below], 0, 1)
    for index, weight in zip(below.tolist(), weights.tolist(), strict=True):
        yield np.rint((1 - weight) * planes[index] + weight * planes[index + 1])
