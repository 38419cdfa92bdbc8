"""The saved state: whole or not there, the one before kept, nothing of others taken."""

from __future__ import annotations

import errno
from collections import OrderedDict

import pytest
import torch

from ct_attn.errors import UserError
from ct_attn.training import state as module
from ct_attn.training.state import StateFile, content_digest, read_state, write_state


def made(epoch=1):
    return {
        "epoch": epoch,
        "state_dict": OrderedDict(weight=torch.arange(6.0).reshape(2, 3) + epoch, count=torch.tensor(epoch)),
        "callbacks": {"Log": {"rows": [{"loss": 0.5, "dsc": float("nan")}]}},
        "nothing": None,
        "pair": (1, 2.5),
    }


@pytest.fixture
def files(tmp_path):
    return tmp_path / "state.ckpt", tmp_path / "state.previous.ckpt"


def read(files, said=None):
    return read_state(*files, (said if said is not None else []).append)


def test_what_is_written_is_read_and_the_one_before_is_kept(files):
    for epoch in (1, 2, 3):
        write_state(made(epoch), files[0], previous=files[1])
    newest = read(files)
    assert newest.is_newest
    assert newest.content["epoch"] == 3
    assert torch.equal(newest.content["state_dict"]["weight"], made(3)["state_dict"]["weight"])
    assert "ct_attn" not in newest.content
    assert read((files[1], files[0])).content["epoch"] == 2
    assert len(list(files[0].parent.iterdir())) == 2


def test_where_there_is_none_nothing_is_read(files):
    assert read(files) is None


def cut(content):
    return content[: len(content) // 2]


def changed(content):
    place = content.index(torch.arange(6.0).add(2).numpy().tobytes())
    return content[:place] + b"\0\0\0\x41" + content[place + 4 :]


@pytest.mark.parametrize("damage", [cut, changed, lambda content: b""], ids=["cut", "changed", "empty"])
def test_a_damaged_state_gives_way_to_the_one_before_and_is_not_kept(files, damage):
    for epoch in (1, 2):
        write_state(made(epoch), files[0], previous=files[1])
    files[0].write_bytes(damage(files[0].read_bytes()))
    said = []
    older = read(files, said)
    assert older.content["epoch"] == 1
    assert str(files[0]) in said[0]
    assert "going on from" in said[0]
    StateFile(files[1], older).save_checkpoint(made(2), files[0])
    assert read((files[1], files[0])).content["epoch"] == 1  # not pushed out by the damaged one
    assert read(files).content["epoch"] == 2


def test_a_kill_between_the_two_renames_leaves_the_one_before(files):
    write_state(made(1), files[0], previous=files[1])
    files[0].rename(files[1])
    said = []
    assert read(files, said).content["epoch"] == 1
    assert "No such file" in said[0]


class Trap:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return self.place.touch, ()


def test_a_file_of_others_is_one_line_and_runs_no_code(files):
    torch.save({"state_dict": {}}, files[0])
    with pytest.raises(UserError, match="a file of another program or version"):
        read(files)
    torch.save({"state_dict": Trap(files[1].with_name("sprung"))}, files[0])
    with pytest.raises(UserError, match="a damaged or foreign file"):
        read(files)
    assert not files[1].with_name("sprung").exists()


def test_a_changed_value_is_noticed(files):
    sealed = {**made(), "ct_attn": {"format": "ct_attn state 1", "digest": content_digest(made())}}
    torch.save(sealed | {"epoch": 7}, files[0])
    with pytest.raises(UserError, match="digest differs"):
        read(files)


def test_the_digest_covers_keys_types_shapes_bytes_and_order():
    base = made()
    others = [
        {**base, "epoch": 2},
        {**base, "more": 1},
        {**base, "pair": (2.5, 1)},
        {**base, "state_dict": {"weight": torch.arange(6.0) + 1, "count": torch.tensor(1)}},
        {**base, "state_dict": {"weight": base["state_dict"]["weight"].double(), "count": torch.tensor(1)}},
    ]
    assert content_digest(base) == content_digest(made())
    assert len({content_digest(value) for value in [base, *others]}) == 6


def test_a_disk_that_fills_up_is_one_line_and_leaves_both_states(files, monkeypatch):
    for epoch in (1, 2):
        write_state(made(epoch), files[0], previous=files[1])
    before = [file.read_bytes() for file in files]

    class Full:
        def __init__(self, file):
            self.error = None

        def write(self, data):
            self.error = OSError(errno.ENOSPC, "No space left on device")
            return len(data)

        def flush(self):
            pass

        def check(self):
            raise self.error

    monkeypatch.setattr(module, "_Stream", Full)
    with pytest.raises(UserError, match=r"state\.ckpt: .* No space left on device; make room .* --resume"):
        write_state(made(3), files[0], previous=files[1])
    assert [file.read_bytes() for file in files] == before
    assert len(list(files[0].parent.iterdir())) == 2
