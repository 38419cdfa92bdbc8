"""Cases to look at: which, the pictures of them, and what a viewer shows of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme
from ct_attn.metrics.scores import CaseScore
from ct_attn.pairing import Pair, PairedMasks, Reading, read_pair
from ct_attn.report.figures import attention_picture, case_picture, error_picture
from ct_attn.report.page import CasePicture, Illustration
from ct_attn.report.reduced import ReducedCase, reduced_case
from ct_attn.report.side_by_side import side_by_side_picture
from ct_attn.scan_io import nifti
from ct_attn.scan_io.mask import mask_stem
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Mask, Volume, require_same_grid

#: In one report, over all of its viewer's cases: most of the room below 20 MB is left to pictures.
VIEWER_VOXELS = 6_000_000
_VOXELS_OF_A_CASE = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """How many cases are drawn, and how many the viewer holds.

    ``attention``: the folder of the gates' coefficients; by default they are looked
    for beside the masks. ``side_by_side``: every case is drawn into a file of its own, too.
    """

    pictures: int = 6
    viewer: int = 3
    attention: Path | None = None
    side_by_side: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """One case to be illustrated, all that another process needs to know of it."""

    pair: Pair
    reading: Reading
    rank: str
    interest: int
    draw: bool
    viewer_voxels: int
    attention: Path | None


def choose_cases(scores: Sequence[CaseScore], n: int) -> dict[str, str]:
    """``n`` cases, worst first, and what each is: most of the worst, the median and the best.

    A case is judged by the mean DSC of its organs; one without any DSC is not chosen.
    """
    by_case: dict[str, list[float]] = {}
    for score in scores:
        if score.dsc is not None:
            by_case.setdefault(score.case_id, []).append(score.dsc)
    order = sorted(by_case, key=lambda case_id: statistics.fmean(by_case[case_id]))
    total = len(order)
    places = sorted(_by_interest(total)[:n])
    return {order[place]: _rank(place, total) for place in places}


def sketches(
    pairs: Sequence[Pair], scores: Sequence[CaseScore], reading: Reading, showing: Showing
) -> list[Sketch]:
    """What is to be drawn of the cases whose scan is known."""
    with_scan = {pair.case_id: pair for pair in pairs if pair.image is not None}
    known = [score for score in scores if score.case_id in with_scan]
    drawn, viewed = choose_cases(known, showing.pictures), choose_cases(known, showing.viewer)
    voxels = min(_VOXELS_OF_A_CASE, VIEWER_VOXELS // max(1, len(viewed)))
    ranked = choose_cases(known, len(known))
    interest = {place: number for number, place in enumerate(_by_interest(len(ranked)))}
    return [
        Sketch(
            pair=with_scan[case_id],
            reading=reading,
            rank=rank,
            interest=interest[place],
            draw=case_id in drawn,
            viewer_voxels=voxels if case_id in viewed else 0,
            attention=showing.attention,
        )
        for place, (case_id, rank) in enumerate(ranked.items())
        if case_id in drawn or case_id in viewed
    ]


def illustrate(sketch: Sketch) -> Illustration | UserError:
    """The pictures of one case; an error is handed back, as a picture is worth no numbers."""
    try:
        pair = sketch.pair
        volume, masks = _read(pair, sketch.reading)
        truth, predicted, scheme = masks.in_shared_codes()
        pictures: list[CasePicture] = []
        if sketch.draw:
            pictures = _pictures(pair, volume, truth, predicted, scheme, sketch.attention)
        viewer: ReducedCase | None = None
        if sketch.viewer_voxels:
            viewer = reduced_case(volume, truth, predicted, scheme=scheme, max_voxels=sketch.viewer_voxels)
    except UserError as error:
        return error
    return Illustration(
        case_id=pair.case_id,
        rank=sketch.rank,
        interest=sketch.interest,
        pictures=tuple(pictures),
        viewer=viewer,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """A case whose image, truth and prediction are to be drawn side by side."""

    pair: Pair
    reading: Reading


def draw_side_by_side(job: SideBySide) -> bytes | UserError:
    """The PNG of one case; an error is handed back, as for :func:`illustrate`."""
    try:
        volume, masks = _read(job.pair, job.reading)
    except UserError as error:
        return error
    truth, predicted, scheme = masks.in_shared_codes()
    unknown = [one.name for one in scheme.structures if not set(one.organs) <= set(job.pair.labelled_organs)]
    return side_by_side_picture(volume, truth, predicted, scheme=scheme, not_labelled=unknown)


def require_scans(pairs: Sequence[Pair], truth: Path) -> None:
    """Raise :class:`UserError` where the scans that are to be drawn are not known."""
    if any(pair.image is None for pair in pairs):
        raise UserError(
            truth,
            expected="a manifest, which says where the scans are, to draw cases side by side",
            found="masks alone",
            remedy="give the manifest as --truth, or leave --side-by-side out",
        )


def _read(pair: Pair, reading: Reading) -> tuple[Volume, PairedMasks]:
    assert pair.image is not None  # so they are chosen
    volume = read_scan(pair.image)
    masks = read_pair(pair, reading)
    require_same_grid(volume.grid, masks.truth.grid, subject=str(pair.image), than=str(pair.truth))
    return volume, masks


def _pictures(
    pair: Pair, volume: Volume, truth: Mask, predicted: Mask, scheme: LabelScheme, attention: Path | None
) -> list[CasePicture]:
    slices = f"Axial, coronal and sagittal slices of {pair.case_id}"
    pictures = [
        CasePicture(
            case_id=pair.case_id,
            png=case_picture(volume, truth, predicted, scheme=scheme),
            alt=f"{slices} with contours of truth and prediction",
            caption="Contours: truth solid, prediction dashed",
        ),
        CasePicture(
            case_id=pair.case_id,
            png=error_picture(volume, truth, predicted, scheme=scheme),
            alt=f"{slices}, filled where only the truth or only the prediction has an organ",
            caption="Errors: what only one of the masks has",
        ),
    ]
    for gate, alpha in _attention_maps(pair, attention, volume).items():
        pictures.append(
            CasePicture(
                case_id=pair.case_id,
                png=attention_picture(alpha, truth, predicted, scheme=scheme),
                alt=f"{slices}: the coefficient of gate {gate} from 0 to 1, with the true contours",
                caption=f"Coefficient of gate {gate}: what it multiplies a skip connection with, "
                "no explanation of the result",
            )
        )
    return pictures


def _attention_maps(pair: Pair, folder: Path | None, volume: Volume) -> Mapping[str, Volume]:
    """The coefficients of every gate that were kept of this case, by the gate's name.

    They lie in ``<mask>_attention/`` beside the mask, or in a folder of that name or the
    case's in ``folder``. Raises :class:`UserError` when one is not on the scan's grid.
    """
    name = mask_stem(pair.predicted)
    if folder is None:
        places = [pair.predicted.with_name(f"{name}_attention")]
    else:
        places = [folder / f"{pair.case_id}_attention", folder / f"{name}_attention", folder / pair.case_id]
    found = next((place for place in places if place.is_dir()), None)
    maps = {}
    for path in sorted(found.iterdir()) if found else ():
        if nifti.has_nifti_name(path):
            maps[nifti.stem(path)] = nifti.read_volume(path)
            require_same_grid(maps[nifti.stem(path)].grid, volume.grid, subject=str(path), than="its scan")
    return maps


def _by_interest(total: int) -> list[int]:
    """The places of ``total`` cases as they are chosen: the worst, the median, the best, the 2nd worst ..."""
    first = dict.fromkeys((0, (total - 1) // 2, total - 1))
    return [*first, *(place for place in range(total) if place not in first)][:total]


def _rank(place: int, total: int) -> str:
    """In words: worst, 2nd worst, ..., median, ..., 2nd best, best."""
    if total == 1:
        return "only case"
    if place in (0, total - 1):
        return "best" if place else "worst"
    middle = (total - 1) // 2
    if place == middle:
        return "median"
    return f"{_ordinal(place + 1)} worst" if place < middle else f"{_ordinal(total - place)} best"


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"
