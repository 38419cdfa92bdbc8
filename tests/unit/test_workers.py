from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ct_attn.errors import UserError
from ct_attn.workers import in_order, run_in_processes


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


def sleep_and_double(hundredths: int) -> int:
    time.sleep(hundredths / 100)
    return 2 * hundredths


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_their_items_whichever_is_done_first(workers):
    with in_order(sleep_and_double, [40, 1, 20, 0], workers=workers) as results:
        assert list(results) == [80, 2, 40, 0]


def test_a_worker_killed_while_results_are_read_is_one_line_that_names_the_option():
    with (
        pytest.raises(UserError, match=r"killed, most likely for want of memory; give fewer --workers"),
        in_order(be_killed, [1, 2], workers=2) as results,
    ):
        list(results)


def test_who_stops_reading_results_stops_the_work_that_has_not_begun(tmp_path):
    def read_one_and_fail():
        with in_order(leave_a_file, [(str(tmp_path), n) for n in range(50)], workers=2) as results:
            next(results)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        read_one_and_fail()
    assert 1 <= len(list(tmp_path.iterdir())) < 20


def leave_a_file(place: tuple[str, int]) -> None:
    time.sleep(0.05)
    Path(place[0], str(place[1])).touch()


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
