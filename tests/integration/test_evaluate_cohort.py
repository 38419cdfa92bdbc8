"""A hundred cases through ``ct-attn evaluate``: progress, a torn file, processes, and their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ct_attn.labels import DISK_SCHEME, ORGANS
from ct_attn.manifest import Case, Manifest, write_manifest
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume
from tests.command import ct_attn

COMMAND = Path(sys.executable).with_name("ct-attn")
GRID = Grid(shape=(14, 12, 9), affine=np.diag([-3.0, -3.0, 4.0, 1.0]))
N_CASES, TORN = 100, "case041"


def labels_of(number: int) -> np.ndarray:
    """Four boxes, of other sizes from case to case."""
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    for code in DISK_SCHEME.codes.values():
        i, j = (1, 8)[code % 2], (1, 7)[code // 3]
        labels[i : i + 3 + number % 3, j : j + 2 + number % 4, 2 : 5 + number % 5] = code
    return labels


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A manifest of a hundred test cases, and predictions of which one file is torn."""
    folder = tmp_path_factory.mktemp("hundred")
    cases = []
    for number in range(N_CASES):
        case_id = f"case{number:03d}"
        labels = labels_of(number)
        nifti.write_mask(
            Mask(labels=labels, grid=GRID), folder / "l" / f"{case_id}.nii.gz", scheme=DISK_SCHEME
        )
        scan = Volume(hu=50 * labels.astype(np.int16) - 100, grid=GRID)
        nifti.write_volume(scan, folder / "i" / f"{case_id}.nii.gz")
        labels[:, :, number % 9] = 0
        nifti.write_mask(
            Mask(labels=labels, grid=GRID), folder / "p" / f"{case_id}.nii.gz", scheme=DISK_SCHEME
        )
        cases.append(
            Case(case_id=case_id, patient_id=case_id, image=f"i/{case_id}.nii.gz",
                 label=f"l/{case_id}.nii.gz", labelled_organs=ORGANS)
        )  # fmt: skip
    kept = cases[0].model_copy(update={"case_id": "kept", "patient_id": "kept", "fold": 0})
    names = {"0": "background"} | {str(code): name for name, code in DISK_SCHEME.codes.items()}
    manifest = Manifest(name="m", source="s", licence="l", labels=names, training=(kept,), test=tuple(cases))
    write_manifest(manifest, folder / "manifest.json")
    torn = folder / "p" / f"{TORN}.nii.gz"
    torn.write_bytes(torn.read_bytes()[:80])
    return folder


def arguments(cohort, output, *options):
    return (
        "evaluate",
        "--truth",
        cohort / "manifest.json",
        "--predicted",
        cohort / "p",
        "-o",
        output,
        *options,
    )


def test_a_hundred_cases_with_a_torn_one_give_the_same_bytes_by_one_process_and_by_two(cohort, tmp_path):
    made = {}
    for workers in (1, 2):
        output = tmp_path / f"by{workers}"
        options = ("--pictures", 3, "--viewer", 1, "--per-slice", "--workers", workers)
        done = ct_attn(*arguments(cohort, output, *options))
        assert done.returncode == 1
        assert f"failed: {TORN}: {cohort / 'p' / TORN}.nii.gz: expected a whole NIfTI file" in done.stderr
        assert "1 of 100 cases failed" in done.stderr
        assert "evaluated case099" in done.stderr
        assert "100/100" in done.stderr
        assert "drawn " in done.stderr
        assert "3/3" in done.stderr
        assert "99 cases" in done.stdout
        made[workers] = {path.name: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert sorted(made[1]) == ["report.html", "scores.csv", "scores.json", "slices.csv"]
    assert made[1] == made[2]
    assert made[1]["report.html"].count(b"data:image/png;base64,") == 6  # contours and errors of three
    assert b'id="viewer-canvas"' in made[1]["report.html"]
    assert made[1]["scores.csv"].count(b"\n") == 1 + 99 * len(ORGANS)


needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture
def started(cohort, tmp_path):
    """``ct-attn evaluate`` by two processes, in a session of its own."""
    command = [COMMAND, *map(str, arguments(cohort, tmp_path / "out", "--workers", 2))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        yield process
        process.kill()


def workers_of(process):
    """The process ids of the two workers, as soon as they leave Ctrl-C to their parent."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        ready = [child for child in children_of(process.pid) if is_worker(child) and ignores_interrupt(child)]
        if len(ready) == 2:
            return ready
        time.sleep(0.005)
    raise AssertionError("there never were two workers that leave Ctrl-C to their parent")


def children_of(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


def is_worker(pid):
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def ignores_interrupt(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    return bool(mask >> (signal.SIGINT - 1) & 1)


@needs_proc
def test_a_killed_worker_is_one_line_and_nothing_is_written(started, tmp_path):
    victim, other = workers_of(started)
    os.kill(victim, signal.SIGKILL)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 2
    assert "a worker process: expected 2 processes that finish their work, found one that was killed" in said
    assert said.rstrip().endswith("give fewer --workers")
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert not is_worker(other)


@needs_proc
def test_ctrl_c_stops_all_processes_without_a_word_of_theirs(started, tmp_path):
    workers = workers_of(started)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert not any(map(is_worker, workers))
