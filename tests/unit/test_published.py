from __future__ import annotations

import csv
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from ct_attn.published import FILE_NAME, NOT_LEGIBLE, find, published_figures

OURS = files("ct_attn").joinpath(FILE_NAME)
SHARED = Path(__file__).resolve().parents[3] / "shared" / "published_results.csv"
ROWS = list(csv.DictReader(OURS.read_text().splitlines()))


@pytest.mark.parametrize("place", range(len(ROWS)))
def test_every_row_is_read_as_it_stands(place):
    row = ROWS[place]
    figure = published_figures()[place]
    words = ("table", "method", "stage", "data_set", "train_test", "organ", "metric")
    assert [getattr(figure, word) for word in words] == [row[word] for word in words]
    assert figure.mean == float(row["mean"])
    assert figure.std == (float(row["std"]) if row["std"] else None)


def test_there_is_nothing_but_these_rows():
    assert len(published_figures()) == len(ROWS) == 75
    assert Counter(figure.table for figure in published_figures()) == {
        "multi-class": 32, "higher-capacity": 10, "pancreas-ct": 24, "state-of-the-art": 9,
    }  # fmt: skip


def test_ratios_are_ratios_and_every_mean_over_cases_has_a_spread():
    for figure in published_figures():
        of_network = figure.metric in ("parameters_million", "inference_s")
        assert (figure.std is None) == of_network == (figure.organ == "")
        if figure.metric in ("dsc", "precision", "recall"):
            assert 0 < figure.mean < 1


def test_a_figure_is_found_by_what_it_is_about():
    about = {"organ": "pancreas", "method": "Attention U-Net", "train_test": "61/21"}
    found = find(published_figures(), metric="dsc", stage="AFT", **about)
    assert (found.mean, found.std) == (0.831, 0.038)
    assert find(published_figures(), metric="hd95_mm", stage="AFT", **about) is None


def test_the_higher_capacity_u_nets_have_no_dsc():
    metrics = {figure.metric for figure in published_figures() if figure.table == "higher-capacity"}
    assert metrics == {"precision", "recall", "s2s_mm", "parameters_million", "inference_s"}
    named = {figure.method for figure in published_figures() if figure.method in NOT_LEGIBLE}
    assert named == {figure.method for figure in published_figures() if figure.table == "higher-capacity"} | {
        "U-Net"
    }


def test_the_file_is_the_one_it_was_carried_over_from():
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is missing")
    assert OURS.read_text() == SHARED.read_text()
