"""What may vary between the scans of the phantom, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

Range = tuple[float, float]

#: Distances between slices that scanners are set to, in mm.
USUAL_SLICE_SPACINGS_MM = (0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)

_POSITIVE_RANGES = (
    "in_plane_spacing_mm",
    "slice_spacing_mm",
    "field_of_view_mm",
    "coverage_mm",
    "body_scale",
)
_OTHER_RANGES = ("noise_hu", "blur_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomConfig:
    """The ranges a case is drawn from, uniformly unless said otherwise.

    Raises ``ValueError`` for a reversed range, a spacing, size or scale that is
    not positive, a negative noise or blur, a probability outside 0 to 1, or an
    orientation that is not three letters, one of each of L/R, A/P and I/S.
    """

    #: Pixel size, the same along rows and columns.
    in_plane_spacing_mm: Range = (0.6, 1.0)
    #: Drawn among :data:`USUAL_SLICE_SPACINGS_MM` in the range; where none is, anything in it.
    slice_spacing_mm: Range = (0.75, 5.0)
    #: Side of the square reconstructed in each slice; widened where the body would not fit.
    field_of_view_mm: Range = (320.0, 420.0)
    #: Length scanned along the patient.
    coverage_mm: Range = (230.0, 300.0)
    #: Size of the patient against an average adult.
    body_scale: Range = (0.85, 1.15)
    #: Standard deviation of the noise in the image.
    noise_hu: Range = (8.0, 25.0)
    #: Standard deviation of the in-plane point spread.
    blur_mm: Range = (0.4, 0.9)
    #: Codes for the directions in which the stored axes grow, each equally likely.
    orientations: tuple[str, ...] = ("RAS", "LPS", "LAS", "RPS", "RPI", "LPI", "LAI", "RAI", "PRS", "SAL")
    #: How often the stored axes stand a few degrees oblique to the patient's.
    oblique_probability: float = 0.2
    #: How often the corners outside the circular field of view hold -2048.
    padding_probability: float = 1 / 3

    def __post_init__(self) -> None:
        for name in _POSITIVE_RANGES + _OTHER_RANGES:
            _check_range(name, getattr(self, name), may_be_zero=name in _OTHER_RANGES)
        for name in ("oblique_probability", "padding_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is 0 to 1, got {getattr(self, name)}")
        unknown = [code for code in self.orientations if code not in ORIENTATION_CODES]
        if unknown or not self.orientations:
            raise ValueError(f"an orientation is a code such as RAS, got {unknown or 'none'}")


ORIENTATION_CODES = frozenset(
    "".join(axes) for x in "LR" for y in "PA" for z in "IS" for axes in permutations((x, y, z))
)


def _check_range(name: str, limits: Range, *, may_be_zero: bool) -> None:
    low, high = limits
    if not low <= high < float("inf"):
        raise ValueError(f"{name} is (low, high) with low <= high, got {limits}")
    if low < 0 or (low == 0 and not may_be_zero):
        raise ValueError(f"{name} is {'not negative' if may_be_zero else 'positive'}, got {limits}")
