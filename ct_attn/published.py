"""The figures that Oktay et al. 2018 (arXiv 1804.03999) printed, tables 1 to 4, as they stand there."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FILE_NAME = "oktay2018.csv"
#: What to say beside the tables, where these are blank.
NOT_LEGIBLE = (
    "The printed DSC of U-Net 6.44 M and U-Net 10.40 M is blank: it was not legible in our source of the "
    "paper, unlike the rest of their rows."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """One printed number, with its spread over cases where one is given.

    ``train_test`` are the sizes of both sides of the split, such as ``120/30``.
    ``stage``: ``BFT`` (before fine-tuning), ``AFT`` (after), ``SCR`` (from scratch), or
    empty. ``organ`` is empty for what belongs to a network (``parameters_million``,
    ``inference_s``). Overlap ratios lie in 0 to 1, ``s2s_mm`` is in mm. ``std`` is that
    over cases.
    """

    table: str
    method: str
    stage: str
    data_set: str
    train_test: str
    organ: str
    metric: str
    mean: float
    std: float | None


@cache
def published_figures() -> tuple[PublishedFigure, ...]:
    """All rows of the file that travels with the package, in its order.

    The DSC of the two higher-capacity U-Nets was not legible in our source and is missing.
    """
    text = files("ct_attn").joinpath(FILE_NAME).read_text(encoding="utf-8")
    return tuple(
        PublishedFigure(
            table=row["table"],
            method=row["method"],
            stage=row["stage"],
            data_set=row["data_set"],
            train_test=row["train_test"],
            organ=row["organ"],
            metric=row["metric"],
            mean=float(row["mean"]),
            std=float(row["std"]) if row["std"] else None,
        )
        for row in csv.DictReader(text.splitlines())
    )


def find(
    figures: Sequence[PublishedFigure], *, organ: str, metric: str, method: str, stage: str, train_test: str
) -> PublishedFigure | None:
    """The figure of one network in one experiment, or None where none is printed."""
    wanted = (organ, metric, method, stage, train_test)
    for figure in figures:
        if (figure.organ, figure.metric, figure.method, figure.stage, figure.train_test) == wanted:
            return figure
    return None
