"""One case of a manifest, examined; and whether another case's label suits its scan better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ct_attn.datasets.alignment import AS_STATED, Evidence, turn_to, weigh, winner
from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme
from ct_attn.manifest import Case, source_digest
from ct_attn.preparation.record import voxel_digest
from ct_attn.scan_io import nifti
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Grid, Mask, Volume, require_same_grid

#: A label that fits its scan this much worse than another case's does is taken for swapped.
WORSE_THAN_OTHERS = 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """A case whose files lie in ``root`` and whose label codes are those of ``scheme``."""

    case: Case
    root: Path
    scheme: LabelScheme


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseCheck:
    """What is ``wrong`` or ``doubtful`` with a case, and what the comparison with others needs.

    Digests are None where a file could not be read, ``fit`` (of the label to the scan)
    and ``grid_key`` where the pair could not be judged.
    """

    case_id: str
    wrong: tuple[str, ...]
    doubtful: tuple[str, ...]
    verified: int
    image_digest: str | None
    label_digest: str | None
    voxels: str | None
    grid_key: str
    fit: float | None


def check_case(job: CheckJob) -> CaseCheck:
    """Digests, readability, grid, codes, organs and fit of one case."""
    case, root = job.case, job.root
    wrong: list[str] = []
    doubtful: list[str] = []
    digests = [_digest(root / path, root, wrong) for path in (case.image, case.label)]
    stated = (case.image_digest, case.label_digest)
    for path, found, expected in zip((case.image, case.label), digests, stated, strict=True):
        if found and expected and found != expected:
            wrong.append(f"{path}: its bytes are not those of the digest in the manifest")
    verified = sum(found == expected for found, expected in zip(digests, stated, strict=True) if expected)
    volume, fit = None, None
    if all(digests):
        try:
            volume = read_scan(root / case.image)
            mask, scheme = nifti.read_mask(root / case.label)
            wrong += _wrong_codes(mask, scheme, job)
            require_same_grid(mask.grid, volume.grid, subject=case.label, than=case.image)
            evidence = _evidence(volume, mask, job.scheme)
            found_wrong, found_doubtful = _judge(evidence, case)
            wrong += found_wrong
            doubtful += found_doubtful
            fit = evidence[0].fit if evidence else None
            doubtful += _absent(mask, job)
        except UserError as error:
            wrong.append(_without_root(str(error), root))
    return CaseCheck(
        case_id=case.case_id,
        wrong=tuple(wrong),
        doubtful=tuple(doubtful),
        verified=verified,
        image_digest=digests[0],
        label_digest=digests[1],
        voxels=voxel_digest(volume) if volume is not None else None,
        grid_key=_grid_key(volume.grid) if volume is not None else "",
        fit=fit,
    )


def _digest(path: Path, root: Path, wrong: list[str]) -> str | None:
    try:
        return source_digest(path)
    except (UserError, OSError) as error:
        found = str(error) if isinstance(error, UserError) else f"{path}: {error.strerror}"
        wrong.append(_without_root(found, root))
        return None


def _without_root(text: str, root: Path) -> str:
    return text.replace(f"{root}/", "").replace(str(root), "")


def _wrong_codes(mask: Mask, stated: LabelScheme | None, job: CheckJob) -> Iterator[str]:
    case, scheme = job.case, job.scheme
    unknown = scheme.unknown_codes(mask.labels)
    if unknown:
        yield f"{case.label}: code {', '.join(map(str, unknown))}, which the manifest does not know"
    if stated is not None and stated != scheme:
        yield f"{case.label}: says of itself that its codes mean {stated.codes}, not {scheme.codes}"
    for structure in scheme.structures:
        if set(structure.organs) - set(case.labelled_organs) and (mask.labels == structure.code).any():
            if set(structure.organs) & set(case.labelled_organs):
                continue  # kidney, of which one side is labelled
            yield f"{case.label}: holds {structure.name}, which labelled_organs leaves out"


def _absent(mask: Mask, job: CheckJob) -> Iterator[str]:
    """Organs that should be labelled and are not there: background, as far as training can tell."""
    for structure in job.scheme.structures:
        if (
            set(structure.organs) <= set(job.case.labelled_organs)
            and not (mask.labels == structure.code).any()
        ):
            yield f"{job.case.label}: labels {structure.name}, says labelled_organs, but holds none of it"


def _evidence(volume: Volume, mask: Mask, scheme: LabelScheme) -> list[Evidence]:
    """For each flip, as the header states first; none where nothing is labelled."""
    turned = turn_to(mask, volume.grid.orientation)
    return weigh(volume, turned.labels, scheme) if mask.labels.any() else []


def _judge(evidence: list[Evidence], case: Case) -> tuple[list[str], list[str]]:
    """What the evidence proves wrong, and what it leaves in doubt."""
    if not evidence:
        return [], [f"{case.label}: holds no label"]
    best = winner(evidence)
    if best is not None and best.flip != AS_STATED:
        mirrored = f"{best.describe()}; as it is: {evidence[0].describe()}"
        return [f"{case.label}: fits its scan when mirrored ({mirrored})"], []
    if not evidence[0].is_plausible:
        return [], [f"{case.label}: the scan does not show organs where it lies ({evidence[0].describe()})"]
    return [], []


def _grid_key(grid: Grid) -> str:
    """Equal for scans on one grid."""
    return f"{grid.shape} {np.round(grid.corners_mm, 2).tolist()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """A case and others on the same grid, whose labels may be its own."""

    case: Case
    others: tuple[Case, ...]
    root: Path
    scheme: LabelScheme


def find_better_label(job: Rivals) -> str | None:
    """A sentence that names the case whose label lies clearly better on this scan than its own."""
    volume = read_scan(job.root / job.case.image)

    def evidence_of(case: Case) -> Evidence | None:
        mask, _ = nifti.read_mask(job.root / case.label)
        turned = turn_to(mask, volume.grid.orientation)
        return weigh(volume, turned.labels, job.scheme, [AS_STATED])[0] if mask.labels.any() else None

    own = evidence_of(job.case)
    found = [(evidence, case) for case in job.others if (evidence := evidence_of(case)) is not None]
    if own is None or not found:
        return None
    best, case = max(found, key=lambda one: one[0].fit)
    if not best.is_plausible or own.fit > WORSE_THAN_OTHERS * best.fit:
        return None
    return (
        f"{job.case.label}: the label of {case.case_id} fits this scan better "
        f"(edge {best.edge_contrast_hu:+.0f} HU against {own.edge_contrast_hu:+.0f} HU): swapped?"
    )
