"""The picture of a scan's gates, from what the network computed to a file."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ct_attn import atomic
from ct_attn.inference.gates import GatePlane, GateViews
from ct_attn.labels import LabelScheme
from ct_attn.regrid import nearest_on
from ct_attn.volume import Mask

#: What is drawn: where the image (0 to 1) is above this, and so far around it.
TISSUE, MARGIN_MM = 0.2, 10.0

#: What lies to the left, right, top and bottom of a plane, by the axis across it.
_LETTERS = {0: "APSI", 2: "RLAP"}


def write_gate_picture(views: GateViews, mask: Mask, path: Path, *, scheme: LabelScheme) -> None:
    """Draw ``views`` with the contours of ``mask``, in the codes of ``scheme``, into ``path`` (PNG)."""
    # matplotlib is slow to import
    from ct_attn.report.gate_figure import ShownPlane, gate_picture  # noqa: PLC0415

    def shown(title: str, plane: GatePlane, across: int) -> ShownPlane:
        step_mm = [step for axis, step in enumerate(plane.grid.spacing_mm) if axis != across]
        image = np.squeeze(plane.image, axis=across)
        labels = np.squeeze(nearest_on(mask, plane.grid, beyond="border").labels, axis=across)
        box = _box((image > TISSUE) | (labels > 0), [ceil(MARGIN_MM / step) for step in step_mm])
        maps = np.squeeze(plane.maps, axis=across + 1)[(slice(None), *box)]
        return ShownPlane(
            title=title,
            image=image[box],
            labels=labels[box],
            maps=maps.reshape(len(views.gates), 3, *maps.shape[1:]),
            spacing_mm=(step_mm[0], step_mm[1]),
            letters=_LETTERS[across],
        )

    planes = [shown("axial", views.axial, 2), shown("sagittal", views.sagittal, 0)]
    atomic.write_bytes(path, gate_picture(planes, views.gates, scheme=scheme))


def _box(member: NDArray[np.bool_], margins: list[int]) -> tuple[slice, ...]:
    """The rectangle around ``member`` [U, V] with a margin; the whole where there is nothing."""
    box = []
    for axis, margin in enumerate(margins):
        there = np.flatnonzero(member.any(axis=1 - axis))
        first, last = (there[0], there[-1]) if there.size else (0, member.shape[axis] - 1)
        box.append(slice(max(0, int(first) - margin), int(last) + 1 + margin))
    return tuple(box)
