"""The loss over what a network supervises, and the stages of a training."""

from __future__ import annotations

import pytest
import torch

from ct_attn.losses import LossConfig, SegmentationLoss
from ct_attn.network.segmenter import Supervised
from ct_attn.training.module import SegmentationModule, supervised_loss, thinned
from tests.cohorts import tiny_recipe

PAPER = SegmentationLoss(LossConfig())
KNOWN = torch.ones(2, 3, dtype=torch.bool)


def test_one_prediction_has_the_plain_loss():
    logits, labels = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 4, 4, 4))
    loss = supervised_loss(PAPER, Supervised(logits=(logits,)), labels, KNOWN)
    assert torch.equal(loss, PAPER(logits, labels, KNOWN))


def test_scales_count_by_their_weight_against_thinned_labels_and_the_networks_own_loss_is_added():
    logits = (torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 2, 2, 2))
    labels = torch.randint(0, 3, (2, 4, 4, 4), dtype=torch.uint8)
    supervised = Supervised(logits=logits, weights=(0.75, 0.25), extra=torch.tensor(2.0))
    coarse = labels[:, 1::2, 1::2, 1::2]
    expected = 2.0 + 0.75 * PAPER(logits[0], labels, KNOWN) + 0.25 * PAPER(logits[1], coarse, KNOWN)
    assert torch.allclose(supervised_loss(PAPER, supervised, labels, KNOWN), expected)


def test_thinned_labels_are_labels_that_were_there():
    labels = torch.randint(0, 200, (2, 8, 6, 4), dtype=torch.uint8)
    coarse = thinned(labels, (4, 3, 4))
    assert coarse.dtype == labels.dtype
    assert coarse.shape == (2, 4, 3, 4)
    assert torch.equal(coarse, labels[:, 1::2, 1::2, :])
    assert thinned(labels, (8, 6, 4)) is labels


@pytest.mark.parametrize(
    ("overrides", "frozen"),
    [
        ((), [set(), set(), set()]),
        (("training.freeze=[encoder]",), [{"encoder"}] * 3),
        (
            ("training.first_stage={epochs: 2}",),
            [{"encoder", "center", "pools", "decoder", "raisers", "heads", "stage_heads", "fuse", "highways"}]
            * 2
            + [set()],
        ),
        (
            (
                "training.first_stage={epochs: 1, parts: [heads, fuse, decoder]}",
                "training.freeze=[encoder.0]",
            ),
            [
                {
                    "encoder",
                    "encoder.0",
                    "center",
                    "pools",
                    "raisers",
                    "gating",
                    "gates",
                    "highways",
                    "stage_heads",
                },
                {"encoder.0"},
                {"encoder.0"},
            ],
        ),
    ],
)
def test_parts_wait_for_their_stage(overrides, frozen):
    module = SegmentationModule(tiny_recipe(*overrides))
    assert [set(module.frozen_parts(epoch)) for epoch in range(3)] == frozen
