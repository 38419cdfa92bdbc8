from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ct_attn.losses import DiceLossConfig, SorensenDiceLoss, sorensen_dice

#: Two voxels, two classes. Their softmax is (3/4, 1/4) and (1/2, 1/2).
LOGITS = torch.tensor([[[log(3), 0.0], [0.0, 0.0]]])
LABELS = torch.tensor([[0, 1]])


def loss(logits, labels, **config):
    return SorensenDiceLoss(DiceLossConfig(**config))(logits, labels)


def drawn(seed, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_dice_of_two_voxels_by_hand():
    """Class 0: overlap 3/4, p^2 = 9/16 + 4/16, one voxel. Class 1: 1/2, 1/16 + 4/16, one voxel."""
    background = (2 * 3 / 4 + 1) / (13 / 16 + 1 + 1)
    organ = (2 * 1 / 2 + 1) / (5 / 16 + 1 + 1)
    assert sorensen_dice(LOGITS, LABELS, smoothing_voxels=1).tolist() == pytest.approx([background, organ])
    assert loss(LOGITS, LABELS).item() == pytest.approx(1 - (background + organ) / 2)


def test_background_can_be_left_out():
    organ = (2 * 1 / 2 + 1) / (5 / 16 + 1 + 1)
    assert loss(LOGITS, LABELS, include_background=False).item() == pytest.approx(1 - organ)


def test_smoothing_is_in_voxels():
    scores = sorensen_dice(LOGITS, LABELS, smoothing_voxels=0.25)
    assert scores.tolist() == pytest.approx([1.75 / (13 / 16 + 1.25), 1.25 / (5 / 16 + 1.25)])


def test_denominators_are_squared():
    """Where every p is 1/2, the squares sum to half of what the values do."""
    scores = sorensen_dice(torch.zeros(1, 2, 100), torch.zeros(1, 100), smoothing_voxels=1e-9)
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
        return sorensen_dice(wrong, labels, smoothing_voxels=1e-6)[code].item()

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
        DiceLossConfig(smoothing_voxels=voxels)
