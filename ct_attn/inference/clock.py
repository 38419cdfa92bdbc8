"""How long the stages of a prediction take."""

from __future__ import annotations

import time


class StageClock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("resampling", "network", "blending", "restoring"), 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What was done since the last lap was ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
