from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_weights():
    """Networks draw their weights from torch's global generator: fix it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Patches of a few voxels: threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
