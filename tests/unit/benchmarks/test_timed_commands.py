"""Commands that are run once, whatever stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timed_commands
from timed_commands import alone_in, forget_others, once, remove, seconds_per_step, steps_in

WRITE = [
    sys.executable,
    "-c",
    "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'x').touch()",
]


def test_a_command_is_run_once_and_its_record_says_how_long_where_and_what(tmp_path):
    product = tmp_path / "product"
    first = once("made", [*WRITE, product], product, tmp_path, steps=7)
    assert first["steps"] == 7
    assert first["wall_s"] > 0
    assert first["commit"]
    assert "torch" in first["machine"]
    (product / "x").unlink()
    assert once("made", [*WRITE, product], product, tmp_path, steps=7) == first
    assert not (product / "x").exists()
    assert once("made", [*WRITE, product], product, tmp_path, steps=8)["steps"] == 8
    assert (product / "x").exists()


def test_what_was_cut_off_begins_anew_and_a_failure_leaves_no_record(tmp_path):
    product = tmp_path / "product"
    product.mkdir()
    (product / "half").touch()
    once("made", [*WRITE, product], product, tmp_path)
    assert [file.name for file in product.iterdir()] == ["x"]
    with pytest.raises(subprocess.CalledProcessError):
        once("broken", [sys.executable, "-c", "1/0"], tmp_path / "other", tmp_path)
    assert not (tmp_path / "broken.json").exists()
    assert "ZeroDivisionError" in (tmp_path / "broken.log").read_text()


def test_what_is_of_other_facts_is_removed_whole_and_what_is_of_the_same_stays(tmp_path):
    folder = tmp_path / "training"
    once("trained", [*WRITE, folder / "run"], folder / "run", folder, steps=10, recipe="a")
    forget_others(folder, {"steps": 10, "recipe": "a"})
    assert (folder / "run" / "x").is_file()
    forget_others(folder, {"steps": 10, "recipe": "b"})
    assert not folder.exists()
    folder.mkdir()
    (folder / "scored.json").touch()  # of a training that is not done
    forget_others(folder, {"steps": 10, "recipe": "b"})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_gone_under_its_name_before_its_files_are(tmp_path, monkeypatch):
    folder = tmp_path / "training"
    folder.mkdir()
    (folder / "scored.json").touch()

    def killed(path, **_):
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(timed_commands.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(folder)
    assert not folder.exists()


def test_nobody_else_works_in_the_same_folder(tmp_path):
    with alone_in(tmp_path), pytest.raises(SystemExit, match="another process"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_a_command_dies_with_who_ran_it(tmp_path):
    child = tmp_path / "child"
    inner = (
        f"import os, pathlib, time; pathlib.Path({str(child)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    outer = (
        "import sys, pathlib; from timed_commands import once; "
        f"once('x', [sys.executable, '-c', {inner!r}], pathlib.Path({str(tmp_path / 'p')!r}), "
        f"pathlib.Path({str(tmp_path)!r}))"
    )
    folder = str(Path(timed_commands.__file__).parent)
    parent = subprocess.Popen([sys.executable, "-c", outer], cwd=folder)
    pid = int(soon(lambda: child.is_file() and child.read_text()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert soon(lambda: not alive(pid))


def soon(found, *, within_s=60):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    return None


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


def test_a_line_through_two_times_says_how_many_steps_fit():
    assert seconds_per_step({10: 12.0, 60: 37.0}) == (0.5, 7.0)
    assert steps_in(60, 0.5, 7.0, epochs=10) == 100
    with pytest.raises(ValueError, match="60 steps took"):
        seconds_per_step({10: 12.0, 60: 11.0})
    with pytest.raises(ValueError, match="not enough"):
        steps_in(60, 0.5, 57.0, epochs=10)
