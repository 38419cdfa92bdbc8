"""A synthetic abdominal CT, drawn by seed, with pancreas, spleen and kidneys labelled.

An abdomen is drawn in continuous millimetres (:mod:`.anatomy`) and then sampled on
a scan grid (:mod:`.scanner`); :func:`draw_case` does both. No patient data went in.
"""

from __future__ import annotations

from ct_attn.datasets.phantom.case import CaseFacts, PhantomCase, draw_case
from ct_attn.datasets.phantom.config import PhantomConfig

__all__ = ["CaseFacts", "PhantomCase", "PhantomConfig", "draw_case"]
