"""A label map onto its scan: codes, axes, and the flip that the image or the header speaks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ct_attn.datasets.alignment import AS_STATED, Evidence, Flip, flipped, turn_to, weigh, winner
from ct_attn.datasets.source import LabelFile
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME
from ct_attn.scan_io import nifti
from ct_attn.volume import Mask, Volume, require_same_grid

#: Two labels of one organ, drawn by different people on one scan, overlap at least so much.
MIN_AGREEMENT_DSC = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedLabel:
    """``labels`` uint8 [I, J, K] in disk codes on the scan's grid, and why they lie as they do.

    ``decided_by``: ``image`` (one flip alone fits), ``header`` (trusted, and the image
    speaks for no other) or ``user``.
    """

    labels: NDArray[np.uint8]
    flip: Flip
    decided_by: str
    evidence: tuple[Evidence, ...]


def place_label(file: LabelFile, volume: Volume, said: Flip | None = None) -> PlacedLabel:
    """The label map of ``file`` on the grid of ``volume``; ``said`` is the user's word on its flip.

    Raises :class:`UserError` when it can't be read, holds an unknown code or nothing at
    all, has another size (or, with a trusted header, lies elsewhere), or the image
    leaves doubt about its flip (or speaks against a trusted header).
    """
    read, _ = nifti.read_mask(file.path)
    codes = Mask(labels=file.table.to_disk_codes(read.labels, file.path), grid=read.grid)
    mask = turn_to(codes, volume.grid.orientation)
    if file.header_is_trusted:
        require_same_grid(mask.grid, volume.grid, subject=str(file.path), than="the scan")
    elif mask.labels.shape != volume.grid.shape:
        raise UserError(
            file.path,
            expected=f"the scan's size ({volume.grid.describe()})",
            found=mask.grid.describe(),
            remedy="check that the case numbers belong together",
        )
    if not mask.labels.any():
        raise UserError(
            file.path,
            expected=f"a label of {', '.join(file.table.labelled_organs)}",
            found="an empty one",
            remedy="check the file, and that its codes are those of the data set",
        )
    evidence = tuple(weigh(volume, mask.labels, DISK_SCHEME))
    flip, decided_by = _choose(file, evidence, said)
    labels = flipped(mask.labels, flip, volume.grid.orientation)
    return PlacedLabel(labels=labels, flip=flip, decided_by=decided_by, evidence=evidence)


def _choose(file: LabelFile, evidence: tuple[Evidence, ...], said: Flip | None) -> tuple[Flip, str]:
    if said is not None:
        return said, "user"
    best = winner(evidence)
    if file.header_is_trusted and (best is None or best.flip == AS_STATED):
        return AS_STATED, "header"
    if best is None or file.header_is_trusted:
        wanted = (
            "that lies on its organs as its header says" if file.header_is_trusted else "that one flip fits"
        )
        ordered = sorted(evidence, key=lambda one: one.fit, reverse=True)
        raise UserError(
            file.path,
            expected=f"a label {wanted}, and no other flip",
            found="; ".join(one.describe() for one in ordered[:2]),
            remedy="look at the case; --flip CASE=FLIP settles it",
        )
    return best.flip, "image"


def agreement(first: NDArray[np.uint8], second: NDArray[np.uint8], file: LabelFile) -> dict[str, float]:
    """DSC of each organ that two label maps in disk codes both hold; ``file`` is the second's.

    Raises :class:`UserError` when it is below :data:`MIN_AGREEMENT_DSC`.
    """
    found = {}
    for organ in file.table.labelled_organs:
        ours, theirs = first == DISK_SCHEME.codes[organ], second == DISK_SCHEME.codes[organ]
        if not ours.any() or not theirs.any():
            continue
        dsc = 2 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs))
        if dsc < MIN_AGREEMENT_DSC:
            raise UserError(
                file.path,
                expected=f"a {organ} like the other label's (DSC {MIN_AGREEMENT_DSC} at least)",
                found=f"DSC {dsc:.2f}",
                remedy="check that both labels are of this case",
            )
        found[organ] = round(float(dsc), 4)
    return found
