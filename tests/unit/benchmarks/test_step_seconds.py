"""How long a step takes, as a training makes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import step_seconds
from study_design import SLICES_2_5D


def test_steps_are_timed_in_a_process_of_their_own(tiny_manifest, tmp_path):
    measured = tmp_path / "step.json"
    changes = (*SLICES_2_5D.all_changes(full_size=False), "training.patch_size=[32,32,1]")
    words = [sys.executable, step_seconds.__file__, SLICES_2_5D.recipe, "--data", tiny_manifest]
    words += ["-o", measured, "--seconds", "0.5", *(word for one in changes for word in ("--set", one))]
    subprocess.run(words, check=True, cwd=Path(step_seconds.__file__).parent)
    found = json.loads(measured.read_text())
    assert len(found["steps_s"]) >= step_seconds.AT_LEAST
    assert sum(found["steps_s"]) > 0.49  # they fill the time
    assert min(found["steps_s"]) <= found["step_s"] <= max(found["steps_s"])
    assert found["threads"] >= 1
