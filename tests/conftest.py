"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from rich.progress import Progress

if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes share the cores, and threads that wait for each other's cost them much.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.cohorts import make_tiny_cohort

settings.register_profile("default", derandomize=True, max_examples=25, deadline=None)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def _memory_goes_back() -> Iterator[None]:
    """A training in a test process doesn't keep its peak for all the tests that follow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ct_attn.train.keep_freed_memory", lambda: None)
        yield


@pytest.fixture
def shared_data() -> Path:
    """The folder of real scans beside the checkout; the test is skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real scans: {folder} is missing (the project may not contain them)")
    return folder


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a cohort of four training cases and one test case; do not change its files."""
    return make_tiny_cohort(tmp_path_factory.mktemp("tiny") / "cohort")


@pytest.fixture
def silent() -> Progress:
    return Progress(disable=True)
