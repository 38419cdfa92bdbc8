from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ct_attn.atomic import remove_partials, replacing, write_bytes, write_text


def test_writes_into_folders_that_did_not_exist(tmp_path):
    target = tmp_path / "a" / "b" / "note.txt"
    write_text(target, "Sörensen\n")
    assert target.read_bytes() == "Sörensen\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_replaces_an_older_file_only_at_the_end(tmp_path):
    target = tmp_path / "note.txt"
    target.write_text("older")
    with replacing(target) as partial:
        partial.write_text("newer")
        assert target.read_text() == "older"
    assert target.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [target]


def test_the_partial_file_is_a_hidden_sibling_of_the_same_suffix(tmp_path):
    with replacing(tmp_path / "mask.nii.gz") as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith(".")
        assert partial.name.endswith("mask.nii.gz")
        partial.touch()


@pytest.mark.parametrize("older", [None, "older"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_keeps_the_older_file_and_leaves_nothing(tmp_path, older, error):
    target = tmp_path / "note.txt"
    if older is not None:
        target.write_text(older)
    with pytest.raises(error), replacing(target) as partial:  # noqa: PT012 - the block is what fails
        partial.write_text("half")
        raise error
    assert [path.read_text() for path in tmp_path.iterdir()] == ([older] if older else [])


def test_a_block_that_writes_nothing_does_not_pass_for_success(tmp_path):
    target = tmp_path / "note.txt"
    target.write_text("older")
    with pytest.raises(FileNotFoundError), replacing(target):
        pass
    assert target.read_text() == "older"


def test_bytes_and_name_are_flushed_to_disk_in_order(tmp_path, monkeypatch):
    """The bytes before the rename, the folder's entry after it."""
    steps = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        steps.append(f"flush {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")  # noqa: PTH119, PTH115
        real_fsync(descriptor)

    def replace(source, target):
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(tmp_path / "note.txt", "text")
    assert re.fullmatch(r"flush \.partial-[0-9a-f]{8}-note\.txt", steps[0])
    assert steps[1:] == ["rename", f"flush {tmp_path.name}"]


def test_a_failing_write_names_the_file_that_was_wanted(tmp_path):
    with pytest.raises(OSError, match="no room") as caught, replacing(tmp_path / "mask.nii.gz"):
        raise OSError(28, "no room")
    assert caught.value.filename == str(tmp_path / "mask.nii.gz")


def test_the_older_file_is_kept_under_the_name_asked_for(tmp_path):
    target, previous = tmp_path / "state", tmp_path / "state.previous"
    for text in ("first", "second", "third"):
        with replacing(target, previous=previous) as partial:
            partial.write_text(text)
    assert (target.read_text(), previous.read_text()) == ("third", "second")
    with pytest.raises(OSError, match="full"), replacing(target, previous=previous):
        raise OSError("full")
    assert (target.read_text(), previous.read_text()) == ("third", "second")


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / ".partial-0123abcd-note.txt").write_text("half")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    remove_partials(tmp_path / "absent")


def test_bytes_are_written_whole_or_the_older_file_stays(tmp_path, monkeypatch):
    target = tmp_path / "picture.png"
    write_bytes(target, b"older")

    def fail(path: Path, content: bytes) -> int:
        path.write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        write_bytes(target, b"newer")
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]
