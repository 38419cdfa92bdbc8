"""Voxels counted over batches, and what follows from them."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.loss_config import LossConfig
from ct_attn.metrics import count_overlap
from ct_attn.training.confusion import columns, count_voxels, predicted_labels, ratios

SEEDS = st.integers(0, 2**16)


@given(SEEDS)
def test_a_voxel_is_the_class_of_the_largest_logit_and_the_first_of_equal_ones(seed):
    outputs = torch.randint(-2, 3, (2, 4, 3, 3, 3), generator=torch.Generator().manual_seed(seed)).float()
    labels = predicted_labels(outputs, LossConfig())
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, torch.from_numpy(outputs.numpy().argmax(1)).to(torch.uint8))


@given(SEEDS)
def test_with_sigmoids_a_voxel_is_the_organ_of_highest_probability_above_one_half(seed):
    outputs = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    probabilities = torch.sigmoid(outputs)
    expected = torch.where(probabilities.amax(1) > 0.5, probabilities.argmax(1) + 1, 0)
    assert torch.equal(predicted_labels(outputs, LossConfig(activation="sigmoid")).long(), expected)


@given(SEEDS)
def test_voxels_are_pooled_over_the_cases_that_label_the_class_in_full(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(0, 4, (2, 3, 4, 5, 2), dtype=np.uint8)
    known = rng.random((3, 4)) < 0.6
    counts = count_voxels(*map(torch.from_numpy, (predicted, truth, known)))
    assert counts.dtype == torch.int64
    for code in (1, 2, 3):
        cases = known[:, code]
        overlap = count_overlap(truth[cases] == code, predicted[cases] == code)
        expected = [overlap.true_positive, overlap.false_positive, overlap.false_negative]
        assert counts[code - 1].tolist() == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((6, 2, 4), (12 / 18, 6 / 12, 6 / 8, 6 / 10)),
        ((0, 0, 5), (0.0, 0.0, nan, 0.0)),
        ((0, 5, 0), (0.0, 0.0, 0.0, nan)),
        ((0, 0, 0), (nan, nan, nan, nan)),
    ],
)
def test_ratios_that_divide_nothing_by_nothing_are_no_numbers(counts, expected):
    assert ratios(counts) == pytest.approx(expected, nan_ok=True)


def test_each_ratio_has_its_mean_before_its_targets():
    names = columns(["pancreas", "spleen"], prefix="training_")
    assert names[:3] == ["training_dsc", "training_dsc_pancreas", "training_dsc_spleen"]
    assert [name.split("_")[1] for name in names[::3]] == ["dsc", "iou", "precision", "recall"]
