"""Small cases in a cache folder, for tests of what reads them."""

from __future__ import annotations

import numpy as np
import torch

from ct_attn.training.cache import CachedCase, write_entry

SPACING_MM = (2.0, 2.0, 2.0)


def cached_case(folder, *, image, label, known, case_id="made"):
    """A case of arrays [I, J, K] as :func:`ct_attn.training.cache.fill` leaves it."""
    file = folder / f"{case_id}.safetensors"
    image = torch.from_numpy(np.array(image)).to(torch.float16)
    label = torch.from_numpy(np.array(label)).to(torch.uint8)
    write_entry(image, label, file, key="made for a test", n_classes=len(known), spacing_mm=SPACING_MM)
    return CachedCase(case_id=case_id, file=file, known=tuple(known))
