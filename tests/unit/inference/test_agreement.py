from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.inference.agreement import Agreement, largest, let_go

EVERYWHERE = np.array(True)


def drawn(*shape):
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def test_of_equal_logits_the_first_class_is_the_largest():
    logits = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0]], dtype=np.float32)
    assert largest(logits).tolist() == [0, 1]


@given(st.integers(0, 1000), st.integers(1, 5))
def test_the_largest_is_numpys_argmax(seed, classes):
    logits = np.random.default_rng(seed).integers(0, 3, (classes, 4, 5)).astype(np.float32)
    assert np.array_equal(largest(logits), logits.argmax(axis=0))


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_slices_that_are_let_go_make_room_at_the_end(count):
    layer = np.arange(1, 9).reshape(2, 4)
    before = layer.copy()
    let_go(layer, count)
    assert np.array_equal(layer[:, : 4 - count], before[:, count:])
    assert not layer[:, 4 - count :].any()


def certain_of(*codes) -> np.ndarray:
    """Logits [3, 1, 1, n] that give voxel n to its code."""
    return np.eye(3, dtype=np.float32)[list(codes)].T[:, None, None].copy()


def test_agreement_is_the_dice_of_all_votes_with_the_outcome_where_there_are_two():
    agreement = Agreement(3, (1, 1, 4))
    everything = (slice(0, 1), slice(0, 1))
    agreement.vote((*everything, slice(0, 3)), certain_of(1, 1, 1))
    agreement.vote((*everything, slice(1, 4)), certain_of(1, 0, 1))
    agreement.settle(certain_of(1, 1, 1, 1), EVERYWHERE)
    # Voxels 1 and 2 have two votes: class 1 is said three times, the outcome is it four times.
    _, first, second = agreement.of_classes()
    assert first == pytest.approx(2 * 3 / (3 + 4))
    assert isnan(second)


def test_where_nothing_is_wanted_votes_do_not_count():
    agreement = Agreement(3, (1, 1, 4))
    for _ in range(2):
        agreement.vote((slice(0, 1), slice(0, 1), slice(0, 4)), certain_of(1, 2, 1, 1))
    agreement.settle(certain_of(1, 2, 0, 0), np.array([True, True, False, False])[None, None])
    assert agreement.of_classes()[1:] == [1.0, 1.0]


def test_agreement_does_not_depend_on_where_slabs_end():
    votes = [(slice(0, 6), drawn(3, 5, 4, 6)), (slice(2, 8), drawn(3, 5, 4, 7)[..., :6])]
    outcome = drawn(3, 5, 4, 8)
    figures = []
    for ends in ([8], [2, 8], [1, 2, 5, 8]):
        agreement = Agreement(3, (5, 4, 8))
        for k, logits in votes:
            agreement.vote((slice(0, 5), slice(0, 4), k), logits)
        for begin, end in zip([0, *ends], ends, strict=False):
            agreement.settle(outcome[..., begin:end], EVERYWHERE)
        figures.append(agreement.of_classes())
    assert figures[0] == figures[1] == figures[2]
    assert 0 < figures[0][1] < 1


def test_slices_that_are_settled_make_room_for_later_ones():
    """A layer as deep as a window counts what a layer of the whole box does."""
    votes = [(begin, drawn(3, 5, 4, 5 + begin)[..., :4]) for begin in (0, 2, 4, 6)]
    outcome = drawn(3, 5, 4, 10)
    whole, layer = Agreement(3, (5, 4, 10)), Agreement(3, (5, 4, 4))
    plane = (slice(0, 5), slice(0, 4))
    for begin, logits in votes:
        whole.vote((*plane, slice(begin, begin + 4)), logits)
        layer.vote((*plane, slice(begin, begin + 4)), logits)
        end = 10 if begin == 6 else begin + 2
        layer.settle(outcome[..., begin:end], EVERYWHERE)
    whole.settle(outcome, EVERYWHERE)
    assert layer.of_classes() == whole.of_classes()
    assert 0 < whole.of_classes()[1] < 1


@given(seed=st.integers(0, 1000), windows=st.integers(1, 6))
def test_agreement_is_its_definition(seed, windows):
    random = np.random.default_rng(seed)
    classes, box = 3, (5, 5, 6)
    outcome = random.random((classes, *box), dtype=np.float32)
    agreement = Agreement(classes, box)
    votes, said = np.zeros(box, dtype=int), []
    for _ in range(windows):
        begin = random.integers(0, 3, 3)
        i, j, k = (slice(first, first + 3) for first in begin)
        logits = random.random((classes, 3, 3, 3), dtype=np.float32)
        agreement.vote((i, j, k), logits)
        votes[i, j, k] += 1
        said.append(((i, j, k), logits.argmax(axis=0)))
    agreement.settle(outcome, EVERYWHERE)
    both, either = np.zeros(classes), np.zeros(classes)
    for place, labels in said:
        for code in range(classes):
            a = (labels == code) & (votes[place] > 1)
            b = (outcome.argmax(axis=0)[place] == code) & (votes[place] > 1)
            both[code] += (a & b).sum()
            either[code] += a.sum() + b.sum()
    expected = [2 * x / y if y else float("nan") for x, y in zip(both, either, strict=True)]
    np.testing.assert_allclose(agreement.of_classes(), expected)
