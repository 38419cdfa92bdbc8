from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_weights():
    """Networks draw their weights from torch's global generator: fix it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
