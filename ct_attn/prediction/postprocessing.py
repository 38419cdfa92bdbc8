"""What is learnt about a model on validation cases and kept beside it.

``postprocessing.json`` in the model's folder: which parts of each organ are dropped, how
confidence goes with DSC, and what the training scans were like. It holds for one model,
named by digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ct_attn.errors import UserError
from ct_attn.prediction.filtering import OrganFilter
from ct_attn.prediction.ranges import TrainingRanges, joined
from ct_attn.prediction.record import write_json
from ct_attn.strict_model import FrozenModel, describe_validation_error

FILE_NAME = "postprocessing.json"


class FilterChoice(FrozenModel):
    """The filter of an organ, and the mean DSC over ``n_cases`` validation cases without and with it."""

    filter: OrganFilter
    n_cases: int
    dsc_without: float | None
    dsc_with: float | None


class Bin(FrozenModel):
    """Validation cases whose confidence lies from ``low`` to ``high``, and what they reached."""

    low: float
    high: float
    n_cases: int
    mean_confidence: float
    mean_dsc: float


class Calibration(FrozenModel):
    """How the confidence of an organ goes with its DSC, case by case.

    ``points``: (confidence, DSC) of each validation case in which the organ was found and
    labelled. ``rank_correlation``: Spearman's, None with fewer than three cases or where all
    are equal. ``bins`` hold about equally many cases each.
    """

    points: tuple[tuple[float, float], ...]
    rank_correlation: float | None
    bins: tuple[Bin, ...]

    def expected_dsc(self, confidence: float | None) -> float | None:
        """The mean DSC of the bin nearest to ``confidence``; None where there is neither."""
        if confidence is None or math.isnan(confidence) or not self.bins:
            return None
        return min(self.bins, key=lambda one: abs(one.mean_confidence - confidence)).mean_dsc


class Postprocessing(FrozenModel):
    """All that was learnt for the model of ``model_digest`` on fold ``fold`` of a manifest."""

    format: Literal["ct_attn postprocessing 1"] = "ct_attn postprocessing 1"
    model_digest: str
    manifest_digest: str
    fold: int
    n_cases: int
    version: str
    filters: dict[str, FilterChoice]
    calibration: dict[str, Calibration]
    training: TrainingRanges


def read_postprocessing(folder: Path, model_digest: str) -> Postprocessing | None:
    """What lies in the model's ``folder``, or None where nothing does.

    Raises :class:`UserError` when it can't be read or was learnt for another model.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        learnt = Postprocessing.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            path,
            expected="a file that ct-attn calibrate wrote",
            found=describe_validation_error(error),
            remedy="run ct-attn calibrate again, or say --filter off",
        ) from error
    if learnt.model_digest != model_digest:
        raise UserError(
            path,
            expected=f"what was learnt for this model ({model_digest[:15]}...)",
            found=f"that of another ({learnt.model_digest[:15]}...)",
            remedy="run ct-attn calibrate again, or say --filter off",
        )
    return learnt


def write_postprocessing(learnt: Postprocessing, folder: Path) -> Path:
    write_json(learnt, folder / FILE_NAME)
    return folder / FILE_NAME


def common_filters(models: Sequence[Postprocessing | None]) -> dict[str, OrganFilter]:
    """The filters that hold for a mean of ``models``: what every one of them chose.

    A part is dropped when each model's own choice would drop it: the largest is kept where all
    say so, and the least of the smallest volumes counts.
    """
    if not models or any(one is None for one in models):
        return {}
    chosen = [one.filters for one in models if one is not None]
    return {
        organ: OrganFilter(
            keep_largest=all(one[organ].filter.keep_largest for one in chosen),
            minimum_ml=min(one[organ].filter.minimum_ml for one in chosen),
        )
        for organ in chosen[0]
        if all(organ in one for one in chosen)
    }


def common_ranges(models: Sequence[Postprocessing | None]) -> TrainingRanges | None:
    """What at least one of ``models`` was trained on; None where that is not known of each."""
    if not models or any(one is None for one in models):
        return None
    return joined(one.training for one in models if one is not None)


def expected_dsc(
    models: Sequence[Postprocessing | None], confidence: Mapping[str, float | None]
) -> dict[str, float | None]:
    """What cases of such a confidence reached; only for a single model, since a mean has its own."""
    if len(models) != 1 or models[0] is None:
        return {}
    known = models[0].calibration
    return {organ: known[organ].expected_dsc(value) for organ, value in confidence.items() if organ in known}
