"""How a scan that can't be taken as it is may be read after all, by the user's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ct_attn.volume import Spacing3

#: Hears, in a plain sentence, what was done to a scan beyond reading what the file says.
OnNote = Callable[[str], None]


def no_note(note: str) -> None:
    """Let a note pass unheard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOptions:
    """Corrections the user asks for; without them what can't be trusted is refused.

    ``max_voxels``: more than a header may promise. ``spacing_mm``: of a NIfTI without
    sform and qform whose own spacing is zero. ``prefer``: where sform and qform disagree.
    ``rescale``: slope and intercept that make HU of values that are none. ``series``: UID,
    or its number in the list, of the DICOM series to take. ``fix_spacing``, ``fix_tilt``:
    resample a DICOM series with missing slices or a tilted gantry onto a regular grid.
    """

    max_voxels: int = 2_000_000_000
    spacing_mm: Spacing3 | None = None
    prefer: Literal["sform", "qform"] | None = None
    rescale: tuple[float, float] | None = None
    series: str | None = None
    fix_spacing: bool = False
    fix_tilt: bool = False


AS_IT_IS = ReadingOptions()
