"""A cohort on a Dask cluster that loses a worker, then its driver and scheduler, and is run again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ct_attn.prediction.record import OutputFiles, changed_outputs, read_record
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Volume
from tests.models import make_tiny_model

psutil = pytest.importorskip("psutil", reason="pip install 'ct-attn[cluster]'")
pytest.importorskip("distributed", reason="pip install 'ct-attn[cluster]'")
COMMAND = Path(sys.executable).with_name("ct-attn")
N_SCANS = 24
PATIENCE_S = 300


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """24 small scans, a corrupt one among them, and a model slow enough to be caught at work."""
    folder = tmp_path_factory.mktemp("cohort")
    make_tiny_model(folder / "model", "preprocessing.spacing_mm=[3,3,3]", "inference.overlap=0.75")
    grid = Grid(shape=(64, 64, 48), affine=np.diag([3.0, 3.0, 3.0, 1.0]))
    rng = np.random.default_rng(0)
    for number in range(N_SCANS):
        hu = rng.integers(-100, 200, grid.shape).astype(np.int16)
        nifti.write_volume(Volume(hu=hu, grid=grid), folder / "scans" / f"scan_{number:02}.nii.gz")
    whole = (folder / "scans" / "scan_00.nii.gz").read_bytes()
    (folder / "scans" / "scan_07_corrupt.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def start(cohort):
    """Start the command; whatever is left of it and its workers ends with the test."""
    started = []

    def start():
        started.append(_start(cohort))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.communicate()


def _start(cohort):
    return subprocess.Popen(
        [COMMAND, "predict", "-m", cohort / "model", "-i", cohort / "scans", "-o", cohort / "masks",
         "--cluster", "local", "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def status(cohort):
    return subprocess.run(
        [COMMAND, "status", "-m", cohort / "model", "-i", cohort / "scans", "-o", cohort / "masks"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def committed(cohort):
    """When each mask that has its record was written, and the record."""
    records = [path for path in (cohort / "masks").glob("scan_*.json") if "failed" not in path.name]
    return {
        path.stem: (path.stat().st_mtime_ns, path.with_suffix(".nii.gz").stat().st_mtime_ns)
        for path in records
    }


def settled(cohort):
    """What is committed once nobody works any more: a worker that was just started anew may finish a case."""
    found = committed(cohort)
    while True:
        time.sleep(3)
        earlier, found = found, committed(cohort)
        if found == earlier:
            return found


def wait_for(condition, running=None):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert running is None or running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def workers_of(driver):
    """The processes that predict: those of multiprocessing that have loaded a network."""
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_cohort_survives_the_loss_of_a_worker_and_of_its_driver(cohort, start):
    driver = start()
    wait_for(lambda: len(committed(cohort)) >= 3, driver)
    workers = workers_of(driver)
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    before = len(committed(cohort))
    wait_for(lambda: len(committed(cohort)) >= before + 3, driver)
    family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    os.kill(driver.pid, signal.SIGKILL)  # and with it the scheduler
    driver.communicate()
    wait_for(lambda: not [one for one in family if one.is_running() and one.status() != "zombie"])
    kept = settled(cohort)
    assert 6 <= len(kept) < N_SCANS, "the kill came too late to prove anything"
    assert status(cohort).returncode == 1

    again = start()
    out, err = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 1  # for the corrupt one
    assert f"done before  {len(kept)}" in out
    assert "failed: " in err
    assert "scan_07_corrupt.nii.gz" in err
    assert "Traceback" not in err
    done = committed(cohort)
    assert len(done) == N_SCANS
    assert {name: done[name] for name in kept} == kept, "computed again although committed"
    for name in done:
        files = OutputFiles(mask=cohort / "masks" / f"{name}.nii.gz")
        assert changed_outputs(read_record(files), files) == []
        assert nifti.read_mask(files.mask)[0].grid.shape == (64, 64, 48)
    left = {path.name for path in (cohort / "masks").iterdir()} - {f"{name}.nii.gz" for name in done}
    assert left - {f"{name}.json" for name in done} == {"scan_07_corrupt.failed.json"}

    told = status(cohort)
    assert told.returncode == 1
    assert f"done           {N_SCANS} of {N_SCANS + 1}" in told.stdout
    assert "failed         scan_07_corrupt: scan_07_corrupt.nii.gz: expected" in told.stdout
    (cohort / "scans" / "scan_07_corrupt.nii.gz").unlink()
    assert status(cohort).returncode == 0
