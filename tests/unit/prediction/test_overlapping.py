from __future__ import annotations

import threading

import pytest

from ct_attn.prediction.overlapping import run_overlapping


def run(items, **steps):
    plain = {
        "read": lambda item: item,
        "compute": lambda item, content: content,
        "write": lambda item, made: made,
    }
    return list(run_overlapping(items, **{**plain, **steps}))


@pytest.mark.parametrize("n_items", [0, 1, 2, 5])
def test_every_item_comes_back_in_order_with_its_result(n_items):
    found = run(range(n_items), read=lambda item: 10 * item, compute=lambda item, content: (item, content))
    assert found == [(item, (item, 10 * item)) for item in range(n_items)]


def test_the_next_is_read_and_the_last_written_while_one_is_computed():
    read, written = ([threading.Event() for _ in range(4)] for _ in range(2))

    def compute(item, content):
        if item < 3:
            assert read[item + 1].wait(10), "not read ahead"
        if item > 0:
            assert written[item - 1].wait(10), "not written behind"
        return content

    found = run(range(4), read=lambda item: read[item].set(), compute=compute,
                write=lambda item, _: written[item].set())  # fmt: skip
    assert not [outcome for _, outcome in found if outcome is not None]


def test_no_more_than_one_is_read_ahead():
    begun = []

    def compute(item, content):
        assert max(begun) <= item + 1
        return content

    found = run(range(6), read=begun.append, compute=compute)
    assert not [outcome for _, outcome in found if outcome is not None]


@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_an_item_that_fails_does_not_stop_the_others(step):
    def fail(item, *rest):
        if item == 1:
            raise ValueError("one")
        return item

    found = run(range(3), **{step: fail})
    assert [item for item, _ in found] == [0, 1, 2]
    assert isinstance(found[1][1], ValueError)
    assert not isinstance(found[0][1], Exception)
    assert not isinstance(found[2][1], Exception)


def test_ctrl_c_is_raised_here():
    def stop(item, content):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(range(3), compute=stop)
