from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ct_attn.errors import UserError
from ct_attn.workers import run_in_processes


def double(number: int) -> int:
    return 2 * number


def where(_: int) -> int:
    return os.getpid()


def be_killed(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> None:
    raise UserError("it", expected="more", found=str(number), remedy="give more")


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_comes_back_with_its_result(jobs):
    assert sorted(run_in_processes(double, [3, 1, 2], jobs=jobs)) == [(1, 2), (2, 4), (3, 6)]


def test_one_job_stays_in_this_process_and_two_leave_it():
    assert {pid for _, pid in run_in_processes(where, [1, 2], jobs=1)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in run_in_processes(where, [1, 2], jobs=2)}


def test_what_is_raised_there_is_raised_here():
    with pytest.raises(UserError, match="give more"):
        list(run_in_processes(refuse, [1, 2], jobs=2))


def test_a_killed_worker_is_one_line():
    with pytest.raises(UserError, match="want of memory"):
        list(run_in_processes(be_killed, [1, 2], jobs=2))


SLEEPERS = """
import os, sys, time
sys.path[:0] = {path!r}
from ct_attn.workers import run_in_processes
from tests.unit.test_workers import say_and_sleep
if __name__ == "__main__":
    list(run_in_processes(say_and_sleep, [{folder!r}] * 2, jobs=2))
"""


def say_and_sleep(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_workers_go_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "sleepers.py"
    folder = tmp_path / "pids"
    folder.mkdir()
    script.write_text(SLEEPERS.format(path=sys.path, folder=str(folder)))
    with subprocess.Popen([sys.executable, script]) as parent:
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        parent.kill()
    pids = [int(path.name) for path in folder.iterdir()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, pids))
