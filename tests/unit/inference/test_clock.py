from __future__ import annotations

import pytest

from ct_attn.inference.clock import StageClock


def test_what_lies_between_two_laps_is_the_laters(monkeypatch):
    moments = iter([10.0, 11.0, 13.0, 17.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    clock = StageClock()
    for stage in ("network", "blending", "network"):
        clock.lap(stage)
    assert clock.seconds == pytest.approx({"resampling": 0, "network": 5, "blending": 2, "restoring": 0})
