"""Cases as several runs segmented them, beside the truth: which, from which masks, drawn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme, recode
from ct_attn.metrics.scores import CaseScore
from ct_attn.pairing import Pair, PairedMasks, Reading, find_pairs, read_pair
from ct_attn.report.page import CasePicture
from ct_attn.report.run_figures import Segmented, slices_picture, surfaces_picture
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Grid, Mask, Volume, require_same_grid

#: Volumes of one mask, in two files or counted again, differ by rounding only; a CSV keeps six digits.
SAME_VOLUME = 1e-4

#: What is drawn where there is no scan.
_AIR_HU = -1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Picturing:
    """``n`` cases to draw: the masks they are drawn from.

    ``truth`` and ``fold`` as ``ct-attn evaluate`` was given them; ``predicted``: folders of
    masks by run. A run that is not named there has its masks in a folder ``masks`` in or
    beside its evaluation.
    """

    n: int = 0
    truth: Path | None = None
    predicted: Mapping[str, Path] = field(default_factory=dict)
    fold: int | None = None
    reading: Reading = field(default_factory=lambda: Reading(resample=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A run: the folder of its evaluation, and the scores there by case and organ."""

    folder: Path
    scores: Mapping[tuple[str, str], CaseScore]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCase:
    """The pictures of one case."""

    case_id: str
    slices: CasePicture
    surfaces: CasePicture

    @property
    def files(self) -> dict[str, CasePicture]:
        """By the names they get on disk."""
        return {f"{self.case_id}_slices.png": self.slices, f"{self.case_id}_surfaces.png": self.surfaces}


def draw_compared(runs: Mapping[str, Evaluated], picturing: Picturing) -> list[ComparedCase]:
    """The cases in which ``runs`` differ most, by mean DSC, each as slices and as surfaces.

    Raises :class:`UserError` when masks are missing, cannot be read, or have other volumes
    than the scores say: they are not those that were evaluated.
    """
    if picturing.n == 0:
        _require_nothing_else(picturing)
        return []
    if picturing.truth is None:
        raise UserError(
            "--pictures",
            expected="the masks that the runs were evaluated against",
            found="no --truth",
            remedy="add --truth, as ct-attn evaluate was given it",
        )
    unknown = sorted(set(picturing.predicted) - set(runs))
    if unknown:
        raise UserError(
            f"--predicted {unknown[0]}=...",
            expected=f"one of the runs {', '.join(runs)}",
            found=unknown[0],
            remedy="give NAME=FOLDER with the name of a run",
        )
    pairs = {
        name: {pair.case_id: pair for pair in _pairs(name, run, picturing, picturing.truth)}
        for name, run in runs.items()
    }
    drawn = []
    for case_id in most_different(list(runs.values()), picturing.n):
        if any(case_id not in of_run for of_run in pairs.values()):
            raise UserError(
                picturing.truth,
                expected=f"{case_id}, which the runs have scored",
                found="other cases",
                remedy="give --truth and --fold as they were evaluated",
            )
        of_case = {name: of_run[case_id] for name, of_run in pairs.items()}
        drawn.append(_draw(case_id, of_case, runs, picturing.reading))
    return drawn


def most_different(runs: Sequence[Evaluated], n: int) -> list[str]:
    """``n`` cases, those first in which the mean DSC of organs differs most between ``runs``."""
    means = [_mean_dsc(run.scores) for run in runs]
    common = [case for case in means[0] if all(case in of_run for of_run in means)]
    spread = {case: max(m[case] for m in means) - min(m[case] for m in means) for case in common}
    return sorted(common, key=lambda case: (-spread[case], case))[:n]


def _mean_dsc(scores: Mapping[tuple[str, str], CaseScore]) -> dict[str, float]:
    by_case: dict[str, list[float]] = {}
    for (case_id, _), score in scores.items():
        if score.dsc is not None:
            by_case.setdefault(case_id, []).append(score.dsc)
    return {case_id: statistics.fmean(values) for case_id, values in by_case.items()}


def _require_nothing_else(picturing: Picturing) -> None:
    if picturing.truth is not None or picturing.predicted:
        raise UserError(
            "--truth and --predicted",
            expected="a number of cases to draw",
            found="no --pictures",
            remedy="add --pictures N",
        )


def _pairs(name: str, run: Evaluated, picturing: Picturing, truth: Path) -> list[Pair]:
    folder = picturing.predicted.get(name)
    if folder is None:
        places = (run.folder / "masks", run.folder.parent / "masks")
        folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise UserError(
            name,
            expected="its masks in a folder named masks, in or beside the evaluation",
            found="none",
            remedy=f"name it: --predicted {name}=FOLDER",
        )
    return find_pairs(truth, folder, fold=picturing.fold)


def _draw(
    case_id: str, pairs: Mapping[str, Pair], runs: Mapping[str, Evaluated], reading: Reading
) -> ComparedCase:
    read = {name: read_pair(pair, reading) for name, pair in pairs.items()}
    truth, masks, scheme = _in_one_scheme(read)
    segmented = []
    for name, mask in masks.items():
        scores = {organ: score for (case, organ), score in runs[name].scores.items() if case == case_id}
        _require_evaluated(truth, scheme, scores, "truth_ml", pairs[name].truth)
        _require_evaluated(mask, scheme, scores, "predicted_ml", pairs[name].predicted)
        segmented.append(Segmented(name=name, mask=mask, scores=scores))
    first = next(iter(pairs.values()))
    volume = _scan(first, truth.grid)
    columns = f"the truth and {', '.join(pairs)}"
    return ComparedCase(
        case_id=case_id,
        slices=CasePicture(
            case_id=case_id,
            png=slices_picture(volume, truth, segmented, scheme=scheme),
            alt=f"Axial, coronal and sagittal slices of {case_id} with the organs of {columns}",
            caption="Organs filled; in the runs' columns a white line is the truth's edge",
        ),
        surfaces=CasePicture(
            case_id=case_id,
            png=surfaces_picture(truth, segmented, scheme=scheme),
            alt=f"The organs of {case_id} as surfaces in space, by {columns}",
            caption="Smoothed surfaces, one camera and scale for all columns",
        ),
    )


def _in_one_scheme(read: Mapping[str, PairedMasks]) -> tuple[Mask, dict[str, Mask], LabelScheme]:
    """The truth and each run's mask in the codes of the structures that all can be compared in."""
    shared = {name: masks.in_shared_codes() for name, masks in read.items()}
    truth, _, first = next(iter(shared.values()))
    common = [
        structure
        for structure in first.structures
        if all(structure.name in scheme.names for _, _, scheme in shared.values())
    ]
    scheme = LabelScheme.from_targets({structure.name: structure.organs for structure in common})

    def recoded(mask: Mask, source: LabelScheme) -> Mask:
        return Mask(labels=recode(mask.labels, source, scheme), grid=mask.grid)

    masks = {name: recoded(predicted, source) for name, (_, predicted, source) in shared.items()}
    return recoded(truth, first), masks, scheme


def _require_evaluated(
    mask: Mask, scheme: LabelScheme, scores: Mapping[str, CaseScore], volume: str, path: Path
) -> None:
    """The volumes must be those of the scores: a folder of other masks has the same names."""
    for organ, code in scheme.codes.items():
        wanted_ml = getattr(scores[organ], volume) if organ in scores else None
        if wanted_ml is None:
            continue
        found_ml = np.count_nonzero(mask.labels == code) * mask.grid.voxel_volume_mm3 / 1000
        if not math.isclose(found_ml, wanted_ml, rel_tol=SAME_VOLUME, abs_tol=1e-6):
            raise UserError(
                path,
                expected=f"the mask that was evaluated, with {wanted_ml:.6g} ml of {organ}",
                found=f"{found_ml:.6g} ml",
                remedy="give --truth and --predicted as they were evaluated",
            )


def _scan(pair: Pair, grid: Grid) -> Volume:
    """The scan, where it is known; else nothing but air."""
    if pair.image is None:
        return Volume(hu=np.full(grid.shape, _AIR_HU, dtype=np.int16), grid=grid)
    volume = read_scan(pair.image)
    require_same_grid(volume.grid, grid, subject=str(pair.image), than=str(pair.truth))
    return volume
