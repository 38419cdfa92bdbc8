"""What the doctor says."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import torch

from ct_attn import doctor


def test_every_requirement_has_its_version():
    found = {finding.subject: finding.state for finding in doctor.examine()}
    assert found["torch"] == torch.__version__
    assert set(doctor.REQUIRED) <= set(found)
    assert "threads" in found["processor"]


def test_what_is_missing_is_said_with_its_cure(monkeypatch):
    def version(name):
        if name == "highdicom":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor, "version", version)
    found = {finding.subject: finding.state for finding in doctor.examine()}
    assert found["highdicom"] == "MISSING: pip install highdicom"
