"""Which predicted mask belongs to which true one, and both on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ct_attn.datasets.source import CodeTable, ranges
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, ORGANS, LabelScheme, comparable_structures, recode
from ct_attn.manifest import Case, choose_fold, read_manifest
from ct_attn.regrid import nearest_on, share_inside
from ct_attn.scan_io.mask import find_masks, mask_stem, read_mask
from ct_attn.volume import Mask, require_same_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of one case; ``image`` is the scan to draw, when known.

    ``truth_scheme``: what the manifest says of the codes of ``truth``, where there is one.
    """

    case_id: str
    truth: Path
    predicted: Path
    image: Path | None = None
    labelled_organs: tuple[str, ...] = ORGANS
    truth_scheme: LabelScheme | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How masks are read: what their codes mean, and whether their grids may differ.

    The tables go before what files say of their codes. ``resample``: a prediction on
    another grid is brought onto the truth's by nearest neighbour, where it is refused
    otherwise.
    """

    truth_codes: CodeTable | None = None
    predicted_codes: CodeTable | None = None
    resample: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """The shares of the true organs inside the prediction's grid, of the predicted inside the truth's."""

    of_truth: float
    of_predicted: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedMasks:
    """Both masks of a pair on one grid, and what their codes mean.

    ``overlap`` says of a prediction that was resampled how far its grid and the truth's
    share the organs; None for one that was on the truth's grid. ``presumed``: the masks of
    whose codes neither the user, nor the file, nor a manifest said anything.
    """

    truth: Mask
    predicted: Mask
    truth_scheme: LabelScheme
    predicted_scheme: LabelScheme
    overlap: Overlap | None = None
    presumed: tuple[Literal["truth", "prediction"], ...] = ()

    def in_shared_codes(self) -> tuple[Mask, Mask, LabelScheme]:
        """Truth and prediction in the codes of the structures that can be compared, and those."""
        shared = comparable_structures(self.truth_scheme, self.predicted_scheme)
        truth = recode(self.truth.labels, self.truth_scheme, shared)
        predicted = recode(self.predicted.labels, self.predicted_scheme, shared)
        grid = self.truth.grid
        return Mask(labels=truth, grid=grid), Mask(labels=predicted, grid=grid), shared


def read_pair(pair: Pair, reading: Reading) -> PairedMasks:
    """Both masks of ``pair``.

    Codes mean what ``reading`` says, else what the files say, else what ``pair`` says. A truth
    of which nothing is said is presumed to be in the codes of ``DISK_SCHEME``, a prediction in
    the truth's. Raises :class:`UserError` for files that cannot be read, different grids
    (unless the prediction may be resampled) and unknown codes.
    """
    truth, stated = read_mask(pair.truth)
    said_of_truth = reading.truth_codes or stated or pair.truth_scheme
    truth_meaning = said_of_truth or DISK_SCHEME
    predicted, stated = read_mask(pair.predicted)
    said_of_predicted = reading.predicted_codes or stated
    predicted_meaning = said_of_predicted or truth_meaning
    resample = reading.resample and not predicted.grid.is_same_as(truth.grid)
    if not resample:
        require_same_grid(predicted.grid, truth.grid, subject=str(pair.predicted), than=str(pair.truth))
    truth, truth_scheme = _understood(truth, truth_meaning, pair.truth, "--truth-labels")
    predicted, predicted_scheme = _understood(
        predicted, predicted_meaning, pair.predicted, "--predicted-labels"
    )
    presumed: list[Literal["truth", "prediction"]] = [] if said_of_truth else ["truth"]
    if not said_of_predicted:
        presumed.append("prediction")
    overlap = None
    if resample:
        overlap = Overlap(
            of_truth=share_inside(truth, predicted.grid), of_predicted=share_inside(predicted, truth.grid)
        )
        predicted = nearest_on(predicted, truth.grid)
    return PairedMasks(
        truth=truth,
        predicted=predicted,
        truth_scheme=truth_scheme,
        predicted_scheme=predicted_scheme,
        overlap=overlap,
        presumed=tuple(presumed),
    )


def _understood(
    mask: Mask, meaning: CodeTable | LabelScheme, path: Path, option: str
) -> tuple[Mask, LabelScheme]:
    """``mask``, read from ``path``, in codes of a scheme, and that scheme; no code may lack a meaning."""
    if isinstance(meaning, CodeTable):
        known, strangers = meaning.known, meaning.strangers(mask.labels)
        rest = ranges(strangers).replace(", ", ",ignore=")
        remedy = f"for codes of no organ here, add ignore={rest} to {option}"
    else:
        known = {code: name for name, code in meaning.codes.items()}
        strangers = meaning.unknown_codes(mask.labels)
        remedy = f"say with {option} what all its codes mean, ignore=CODE for those of no organ here"
    if strangers:
        names = ", ".join(f"{code} {name}" for code, name in known.items())
        raise UserError(
            path,
            expected=f"the label codes 0 background, {names}",
            found=f"code {ranges(strangers)}",
            remedy=remedy,
        )
    if isinstance(meaning, LabelScheme):
        return mask, meaning
    return Mask(labels=meaning.recoded(mask.labels, meaning.scheme), grid=mask.grid), meaning.scheme


def find_pairs(truth: Path, predicted: Path, *, fold: int | None = None) -> list[Pair]:
    """Which prediction belongs to which truth, by case id; see :func:`ct_attn.evaluate.evaluate`."""
    if truth.suffix == ".json":
        return _pairs_of_manifest(truth, predicted, fold)
    if truth.is_dir():
        truths = find_masks(truth)
        found = _match(truths, predicted, subject=truth)
        return [
            Pair(case_id=case_id, truth=truths[case_id], predicted=found[case_id])
            for case_id in sorted(truths)
        ]
    case_id = mask_stem(truth)
    if predicted.is_dir():
        predicted = _match({case_id: truth}, predicted, subject=truth)[case_id]
    return [Pair(case_id=case_id, truth=truth, predicted=predicted)]


def _pairs_of_manifest(path: Path, predicted: Path, fold: int | None) -> list[Pair]:
    manifest = read_manifest(path)
    cases: Sequence[Case] = manifest.test if fold is None else choose_fold(manifest, fold, path=path)[1]
    if not cases:
        raise UserError(
            path, expected="test cases", found="none", remedy="name the fold to evaluate with --fold"
        )
    truths = {case.case_id: path.parent / case.label for case in cases}
    found = _match(truths, predicted, subject=path)
    return [
        Pair(
            case_id=case.case_id,
            truth=truths[case.case_id],
            predicted=found[case.case_id],
            image=path.parent / case.image,
            labelled_organs=case.labelled_organs,
            truth_scheme=manifest.label_scheme,
        )
        for case in cases
    ]


def _match(truths: Mapping[str, Path], predicted: Path, *, subject: Path) -> dict[str, Path]:
    """The prediction of every case of ``truths``, by case id: each must be there, and no other."""
    if not predicted.is_dir():
        raise UserError(
            predicted,
            expected="a folder of predicted masks",
            found="none",
            remedy=f"predict the cases of {subject}",
        )
    found = find_masks(predicted)
    missing = [_name_of(case_id, truths[case_id]) for case_id in sorted(set(truths) - set(found))]
    extra = [found[stem].name for stem in sorted(set(found) - set(truths))]
    if missing or extra:
        raise UserError(
            predicted,
            expected=f"one mask for each of the {len(truths)} cases of {subject}",
            found="; ".join(
                f"{what} {', '.join(names)}"
                for what, names in (("none for", missing), ("in addition", extra))
                if names
            ),
            remedy="predict what is missing, move away what is too much",
        )
    return found


def _name_of(case_id: str, truth: Path) -> str:
    """The true mask's file, and the case id that the prediction must be named by where that differs."""
    return truth.name if mask_stem(truth) == case_id else f"{case_id} ({truth.name})"
