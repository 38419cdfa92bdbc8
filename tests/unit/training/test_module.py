"""The validation score."""

from __future__ import annotations

import torch

from ct_attn.training.module import dsc_per_class


def test_dsc_of_two_voxels_of_which_one_is_found():
    truth = torch.tensor([1, 1, 0, 2])
    predicted = torch.tensor([1, 0, 0, 2])
    assert dsc_per_class(predicted, truth, n_classes=3) == [2 / 3, 1.0]


def test_an_absent_class_that_stays_absent_counts_one_and_an_invented_one_zero():
    truth = torch.zeros(4, dtype=torch.int64)
    assert dsc_per_class(truth, truth, n_classes=2) == [1.0]
    assert dsc_per_class(torch.tensor([1, 0, 0, 0]), truth, n_classes=2) == [0.0]
