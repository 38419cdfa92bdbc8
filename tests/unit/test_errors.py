from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ct_attn.errors import UserError


def make() -> UserError:
    return UserError(
        Path("a/scan.nii"), expected="a whole file", found="half\n  of one", remedy="copy it again"
    )


def test_the_message_has_all_parts_on_one_line():
    assert str(make()) == "a/scan.nii: expected a whole file, found half of one; copy it again"


def test_no_part_can_be_left_out():
    with pytest.raises(TypeError):
        UserError("scan.nii", expected="this", found="that")


def test_a_worker_process_can_hand_it_back():
    """A plain pickle of an exception with keyword arguments breaks a process pool."""
    back = pickle.loads(pickle.dumps(make()))
    assert type(back) is UserError
    assert str(back) == str(make())
    assert (back.subject, back.remedy) == ("a/scan.nii", "copy it again")
