from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ct_attn.losses import (
    LossConfig,
    SegmentationLoss,
    marginal_cross_entropy,
    sorensen_dice,
)

#: Two voxels, two classes. Their softmax is (3/4, 1/4) and (1/2, 1/2).
LOGITS = torch.tensor([[[log(3), 0.0], [0.0, 0.0]]])
LABELS = torch.tensor([[0, 1]])


def loss(logits, labels, **config):
    return SegmentationLoss(LossConfig(**config))(logits, labels)


def dice(logits, labels, **config):
    """D of every class, all of them known."""
    known = torch.ones(logits.shape[:2], dtype=torch.bool)
    return sorensen_dice(logits, labels.long(), known, LossConfig(**config))[0]


def drawn(seed, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_dice_of_two_voxels_by_hand():
    """Class 0: overlap 3/4, p^2 = 9/16 + 4/16, one voxel. Class 1: 1/2, 1/16 + 4/16, one voxel."""
    background = (2 * 3 / 4 + 1) / (13 / 16 + 1 + 1)
    organ = (2 * 1 / 2 + 1) / (5 / 16 + 1 + 1)
    assert dice(LOGITS, LABELS, smoothing_voxels=1).tolist() == pytest.approx([background, organ])
    assert loss(LOGITS, LABELS).item() == pytest.approx(1 - (background + organ) / 2)


def test_background_can_be_left_out():
    organ = (2 * 1 / 2 + 1) / (5 / 16 + 1 + 1)
    assert loss(LOGITS, LABELS, include_background=False).item() == pytest.approx(1 - organ)


def test_smoothing_is_in_voxels():
    scores = dice(LOGITS, LABELS, smoothing_voxels=0.25)
    assert scores.tolist() == pytest.approx([1.75 / (13 / 16 + 1.25), 1.25 / (5 / 16 + 1.25)])


def test_denominators_are_squared():
    """Where every p is 1/2, the squares sum to half of what the values do."""
    scores = dice(torch.zeros(1, 2, 100), torch.zeros(1, 100), smoothing_voxels=1e-9)
    assert scores[0].item() == pytest.approx(100 / (25 + 100))


def test_sums_run_over_the_batch_and_not_over_each_image():
    logits = drawn(0, (2, 3, 4, 4, 4))
    labels = torch.randint(0, 3, (2, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    labels[1] = 0
    side_by_side = torch.cat([logits[0], logits[1]], dim=1)[None], torch.cat([labels[0], labels[1]])[None]
    assert loss(logits, labels).item() == pytest.approx(loss(*side_by_side).item(), abs=1e-6)
    each = (loss(logits[:1], labels[:1]) + loss(logits[1:], labels[1:])) / 2
    assert abs(loss(logits, labels).item() - each.item()) > 0.01


@given(st.lists(st.integers(0, 3), min_size=8, max_size=64), st.booleans(), st.floats(1e-3, 10))
def test_a_perfect_prediction_loses_nothing_whichever_classes_are_absent(
    codes, include_background, smoothing
):
    labels = torch.tensor(codes)[None]
    logits = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1) * 1000.0
    assert loss(logits, labels, include_background=include_background, smoothing_voxels=smoothing).item() == 0


@given(st.integers(0, 1000), st.floats(0.1, 20))
def test_the_loss_lies_between_0_and_1(seed, confidence):
    labels = torch.randint(0, 4, (2, 3, 3, 3), generator=torch.Generator().manual_seed(seed))
    assert 0 < loss(confidence * drawn(seed, (2, 4, 3, 3, 3)), labels).item() < 1


def test_every_class_weighs_the_same_however_few_its_voxels():
    """Losing a class of 1 voxel costs as much as losing one of 500, up to the smoothing."""
    labels = torch.zeros(1, 1000, dtype=torch.long)
    labels[0, 0], labels[0, 500:] = 1, 2
    right = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 1000.0

    def without(code):
        wrong = right.clone()
        wrong[0, :, labels[0] == code] = torch.tensor([[1000.0], [0], [0]])
        return dice(wrong, labels, smoothing_voxels=1e-6)[code].item()

    assert without(1) == pytest.approx(without(2), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1, 1e4], ids=["uncertain", "saturated"])
def test_gradients_are_finite_where_all_classes_but_background_are_empty(dtype, scale):
    """More voxels than half precision can count (65 504), nearly all of them sure background."""
    drawn_logits = scale * drawn(1, (1, 4, 48, 48, 32))
    drawn_logits[:, 0] = 6 * scale
    logits = drawn_logits.to(dtype).requires_grad_()
    labels = torch.zeros(1, 48, 48, 32, dtype=torch.uint8)
    value = loss(logits, labels)
    value.backward()
    assert torch.equal(value, loss(logits.float(), labels))
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.dtype == dtype


def test_the_loss_is_that_of_float32_under_autocast():
    logits = drawn(2, (1, 4, 16, 16, 16))
    labels = torch.randint(0, 4, (1, 16, 16, 16), generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        lowered = loss(logits, labels)
    assert torch.equal(lowered, loss(logits, labels))


def test_predicting_an_absent_class_is_punished():
    logits = torch.zeros(1, 3, 10, requires_grad=True)
    loss(logits, torch.zeros(1, 10, dtype=torch.long)).backward()
    assert (logits.grad[0, 0] < 0).all()  # a step down the gradient raises background
    assert (logits.grad[0, 1:] > 0).all()


@pytest.mark.parametrize("voxels", [0, -1, float("nan")])
def test_smoothing_must_be_positive(voxels):
    with pytest.raises(ValidationError, match="smoothing_voxels"):
        LossConfig(smoothing_voxels=voxels)


def marked(*codes):
    """Logits so sure of ``codes`` that their softmax is 0 or 1, [1, 3, n]."""
    return torch.nn.functional.one_hot(torch.tensor(codes), 3).T[None] * 1000.0


def partly(logits, labels, known, **config):
    known = torch.tensor([known])
    return SegmentationLoss(LossConfig(**config))(logits, torch.tensor([labels]), known).item()


def test_linear_denominators_sum_the_probabilities_themselves():
    background = (2 * 3 / 4 + 1) / (5 / 4 + 1 + 1)
    organ = (2 * 1 / 2 + 1) / (3 / 4 + 1 + 1)
    assert dice(LOGITS, LABELS, denominator="linear").tolist() == pytest.approx([background, organ])


def test_sums_over_each_image_give_the_mean_of_their_losses():
    logits = drawn(0, (2, 3, 4, 4, 4))
    labels = torch.randint(0, 3, (2, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    each = (loss(logits[:1], labels[:1]) + loss(logits[1:], labels[1:])) / 2
    assert loss(logits, labels, sums_over="image").item() == pytest.approx(each.item(), abs=1e-6)


def test_cross_entropy_is_added_by_its_weight_and_is_torchs():
    logits, labels = (
        drawn(3, (2, 4, 5, 5)),
        torch.randint(0, 4, (2, 5, 5), generator=torch.Generator().manual_seed(3)),
    )
    plain = torch.nn.functional.cross_entropy(logits, labels)
    added = loss(logits, labels, cross_entropy_weight=0.5) - loss(logits, labels)
    assert added.item() == pytest.approx(0.5 * plain.item(), abs=1e-6)


@pytest.mark.parametrize(
    "config", [{}, {"denominator": "linear"}, {"sums_over": "image"}, {"cross_entropy_weight": 1}]
)
def test_an_organ_the_case_does_not_label_may_be_predicted_anywhere_on_0(config):
    """Class 2 is unknown: calling a voxel labelled 0 background or class 2 is both right."""
    labels = [0, 0, 1]
    assert partly(marked(0, 0, 1), labels, [True, True, False], **config) == pytest.approx(0, abs=1e-6)
    assert partly(marked(0, 2, 1), labels, [True, True, False], **config) == pytest.approx(0, abs=1e-6)
    assert partly(marked(0, 2, 1), labels, [True, True, True], **config) > 0.1
    assert partly(marked(0, 1, 1), labels, [True, True, False], **config) > 0.1


def test_a_labelled_voxel_of_a_half_labelled_organ_still_teaches():
    """Class 2 is labelled on one voxel: missing that voxel costs, finding it elsewhere does not."""
    labels, known = [2, 0, 1], [True, True, False]
    for config in ({}, {"cross_entropy_weight": 1}):
        right = partly(marked(2, 2, 1), labels, known, **config)
        assert right == pytest.approx(0, abs=1e-6)
        assert partly(marked(0, 0, 1), labels, known, **config) > right + 0.1


def test_a_half_labelled_organ_has_no_dice_term_of_its_own():
    known = torch.tensor([[True, True, False]])
    scores, counted = sorensen_dice(marked(0, 2, 1), torch.tensor([[0, 0, 1]]), known, LossConfig())
    assert counted.tolist() == [True, True, False]
    assert scores[:2].tolist() == [1, 1]


def test_a_class_that_one_of_two_cases_knows_is_scored_on_that_case():
    logits = torch.cat([marked(0, 2), marked(2, 2)])
    labels = torch.tensor([[0, 2], [0, 0]])
    known = torch.tensor([[True, True, True], [True, True, False]])
    scores, counted = sorensen_dice(logits, labels, known, LossConfig())
    assert counted.all()
    assert scores.tolist() == [1, 1, 1]


def test_the_gradient_at_an_unlabelled_voxel_does_not_choose_between_background_and_the_unknown():
    logits = torch.zeros(1, 3, 6, requires_grad=True)
    labels, known = torch.tensor([[0, 0, 0, 0, 1, 1]]), torch.tensor([[True, True, False]])
    for config in (LossConfig(), LossConfig(cross_entropy_weight=1)):
        logits.grad = None
        SegmentationLoss(config)(logits, labels, known).backward()
        assert torch.allclose(logits.grad[0, 0], logits.grad[0, 2], atol=1e-7)
        assert torch.isfinite(logits.grad).all()


def test_cross_entropy_of_a_voxel_that_may_be_two_classes_by_hand():
    logits = torch.tensor([[[log(2.0)], [log(5.0)], [log(3.0)]]])  # 0.2, 0.5, 0.3
    known = torch.tensor([[True, True, False]])
    assert marginal_cross_entropy(logits, torch.tensor([[0]]), known).item() == pytest.approx(-log(0.5))
    assert marginal_cross_entropy(logits, torch.tensor([[2]]), known).item() == pytest.approx(-log(0.3))


def test_a_batch_in_which_no_organ_is_known_costs_nothing_without_background():
    logits = drawn(5, (1, 3, 4)).requires_grad_()
    known = torch.tensor([[True, False, False]])
    value = SegmentationLoss(LossConfig(include_background=False))(logits, torch.zeros(1, 4), known)
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


#: Two voxels of two organs without background: probabilities (3/4, 1/2) and (1/2, 1/4).
ORGANS = torch.tensor([[[log(3), 0.0], [0.0, -log(3)]]])


def test_dice_of_sigmoids_by_hand():
    """Organ 1 at the first voxel: overlap 3/4, p^2 = 9/16 + 1/4. Organ 2 nowhere: p^2 = 1/4 + 1/16."""
    labels = torch.tensor([[1, 0]])
    first = (2 * 3 / 4 + 1) / (13 / 16 + 1 + 1)
    second = 1 / (5 / 16 + 1)
    value = loss(ORGANS, labels, activation="sigmoid").item()
    assert value == pytest.approx(1 - (first + second) / 2)
    without = loss(ORGANS, labels, activation="sigmoid", include_background=False).item()
    assert without == pytest.approx(value)


def test_binary_cross_entropy_by_hand_alone_and_added():
    labels = torch.tensor([[1, 0]])
    entropy = (-log(3 / 4) - log(1 / 2) - log(1 / 2) - log(3 / 4)) / 4
    alone = loss(ORGANS, labels, activation="sigmoid", dice_weight=0, cross_entropy_weight=2).item()
    assert alone == pytest.approx(2 * entropy)
    both = loss(ORGANS, labels, activation="sigmoid", cross_entropy_weight=1).item()
    assert both == pytest.approx(entropy + loss(ORGANS, labels, activation="sigmoid").item())


@pytest.mark.parametrize("over", ["batch", "image"])
def test_an_organ_that_a_case_does_not_label_has_no_sigmoid_loss_where_nothing_is_labelled(over):
    labels = torch.tensor([[1, 0, 0]])
    known = torch.tensor([[True, True, False]])
    logits = drawn(1, (1, 2, 3))
    config = LossConfig(activation="sigmoid", cross_entropy_weight=1, sums_over=over)
    changed = logits.clone()
    changed[0, 1, 1:] += 5  # the unknown organ at voxels labelled 0
    before, after = (SegmentationLoss(config)(each, labels, known) for each in (logits, changed))
    assert torch.equal(before, after)
    changed[0, 1, 0] += 5  # and at one that is another organ, so not this one
    assert SegmentationLoss(config)(changed, labels, known) > after


def test_a_loss_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="one must be above"):
        LossConfig(dice_weight=0)
