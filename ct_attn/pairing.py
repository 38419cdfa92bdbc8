"""Which predicted mask belongs to which true one, and both on one grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, ORGANS, LabelScheme, comparable_structures, recode
from ct_attn.manifest import Case, choose_fold, read_manifest
from ct_attn.regrid import nearest_on
from ct_attn.scan_io import nifti
from ct_attn.scan_io.nifti import require_known_codes
from ct_attn.volume import Mask, require_same_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of one case; ``image`` is the scan to draw, when known."""

    case_id: str
    truth: Path
    predicted: Path
    image: Path | None = None
    labelled_organs: tuple[str, ...] = ORGANS


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How masks are read: what their codes mean, and whether their grids may differ.

    ``resample``: a prediction on another grid is brought onto the truth's by nearest
    neighbour, where it is refused otherwise.
    """

    truth_scheme: LabelScheme | None = None
    predicted_scheme: LabelScheme | None = None
    resample: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedMasks:
    """Both masks of a pair on one grid, and what their codes mean."""

    truth: Mask
    predicted: Mask
    truth_scheme: LabelScheme
    predicted_scheme: LabelScheme
    resampled: bool

    def in_shared_codes(self) -> tuple[Mask, Mask, LabelScheme]:
        """Truth and prediction in the codes of the structures that can be compared, and those."""
        shared = comparable_structures(self.truth_scheme, self.predicted_scheme)
        truth = recode(self.truth.labels, self.truth_scheme, shared)
        predicted = recode(self.predicted.labels, self.predicted_scheme, shared)
        grid = self.truth.grid
        return Mask(labels=truth, grid=grid), Mask(labels=predicted, grid=grid), shared


def read_pair(pair: Pair, reading: Reading) -> PairedMasks:
    """Both masks of ``pair``.

    Codes mean what the files say, unless ``reading`` says it; a prediction that doesn't
    say is read in the truth's codes. Raises :class:`UserError` for files that cannot be
    read, different grids (unless the prediction may be resampled) and unknown codes.
    """
    truth, stated = nifti.read_mask(pair.truth)
    truth_scheme = reading.truth_scheme or stated or DISK_SCHEME
    predicted, stated = nifti.read_mask(pair.predicted)
    predicted_scheme = reading.predicted_scheme or stated or truth_scheme
    resample = reading.resample and not predicted.grid.is_same_as(truth.grid)
    if resample:
        predicted = nearest_on(predicted, truth.grid)
    require_same_grid(predicted.grid, truth.grid, subject=str(pair.predicted), than=str(pair.truth))
    require_known_codes(truth, truth_scheme, pair.truth)
    require_known_codes(predicted, predicted_scheme, pair.predicted)
    return PairedMasks(
        truth=truth,
        predicted=predicted,
        truth_scheme=truth_scheme,
        predicted_scheme=predicted_scheme,
        resampled=resample,
    )


def find_pairs(truth: Path, predicted: Path, *, fold: int | None = None) -> list[Pair]:
    """Which prediction belongs to which truth, by case id; see :func:`ct_attn.evaluate.evaluate`."""
    if truth.suffix == ".json":
        return _pairs_of_manifest(truth, predicted, fold)
    if truth.is_dir():
        truths = {nifti.stem(path): path for path in _masks_in(truth)}
        found = _match(set(truths), predicted, subject=truth)
        return [
            Pair(case_id=case_id, truth=truths[case_id], predicted=found[case_id])
            for case_id in sorted(truths)
        ]
    if predicted.is_dir():
        found = _match({nifti.stem(truth)}, predicted, subject=truth)
        predicted = found[nifti.stem(truth)]
    return [Pair(case_id=nifti.stem(truth), truth=truth, predicted=predicted)]


def _pairs_of_manifest(path: Path, predicted: Path, fold: int | None) -> list[Pair]:
    manifest = read_manifest(path)
    cases: Sequence[Case] = manifest.test if fold is None else choose_fold(manifest, fold, path=path)[1]
    if not cases:
        raise UserError(
            path, expected="test cases", found="none", remedy="name the fold to evaluate with --fold"
        )
    found = _match({case.case_id for case in cases}, predicted, subject=path)
    return [
        Pair(
            case_id=case.case_id,
            truth=path.parent / case.label,
            predicted=found[case.case_id],
            image=path.parent / case.image,
            labelled_organs=case.labelled_organs,
        )
        for case in cases
    ]


def _masks_in(folder: Path) -> list[Path]:
    masks = sorted(path for path in folder.iterdir() if nifti.has_nifti_name(path) and path.name[0] != ".")
    if not masks:
        raise UserError(folder, expected="NIfTI masks", found="none", remedy="check the path")
    return masks


def _match(case_ids: Collection[str], predicted: Path, *, subject: Path) -> dict[str, Path]:
    """The prediction of every case: each must be there, and no other."""
    if not predicted.is_dir():
        raise UserError(
            predicted,
            expected="a folder of predicted masks",
            found="none",
            remedy=f"predict the cases of {subject}",
        )
    found = {nifti.stem(path): path for path in _masks_in(predicted)}
    missing, extra = sorted(set(case_ids) - set(found)), sorted(set(found) - set(case_ids))
    if missing or extra:
        raise UserError(
            predicted,
            expected=f"one mask for each of the {len(case_ids)} cases of {subject}",
            found="; ".join(
                f"{what} {', '.join(names)}"
                for what, names in (("without", missing), ("in addition", extra))
                if names
            ),
            remedy="predict what is missing, move away what is too much",
        )
    return found
