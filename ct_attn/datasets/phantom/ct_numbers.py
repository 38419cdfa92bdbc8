"""CT numbers: what the tissues of the abdomen measure in each contrast phase.

Means in HU with a spread between patients (one standard deviation). They are round
numbers chosen to fit the enhancement these papers describe, not copies of their
tables; contents of the gut, skin and lung are plain estimates.

- unenhanced soft tissue: Lamba et al., AJR 2014;203:1013-1020.
- liver, spleen, aorta and portal vein after contrast: Foley et al., AJR
  2000;175:679-685.
- pancreas and its vessels, pancreatic and portal venous phase: McNulty et al.,
  Radiology 2001;220:97-102.
- renal cortex and medulla: Yuh and Cohan, AJR 1999;173:747-755.
- vertebral trabecular bone: Schreiber et al., J Bone Joint Surg Am
  2011;93:1057-1063.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PHASES = ("unenhanced", "arterial", "portal_venous", "delayed")
#: How often each phase is drawn.
PHASE_WEIGHTS = (0.2, 0.25, 0.4, 0.15)

#: HU (mean, spread between patients) that contrast does not change.
PLAIN_HU = {
    "air": (-1000.0, 0.0),
    "lung": (-840.0, 25.0),
    "fat": (-104.0, 5.0),
    "skin": (15.0, 12.0),
    "bowel_fluid": (14.0, 8.0),
    "chyme": (38.0, 12.0),
    "bile": (8.0, 5.0),
    "cortical_bone": (480.0, 90.0),
    "trabecular_bone": (150.0, 35.0),
    "disc": (82.0, 8.0),
    "spinal_canal": (32.0, 5.0),
}

#: HU (mean, spread between patients) by phase, in the order of :data:`PHASES`.
PHASE_HU = {
    "muscle": ((52, 5), (56, 5), (62, 6), (62, 6)),
    "liver": ((55, 7), (68, 8), (108, 12), (94, 9)),
    "spleen": ((48, 4), (118, 16), (118, 12), (98, 9)),
    "pancreas": ((40, 6), (100, 14), (92, 11), (78, 8)),
    "bowel_wall": ((38, 6), (88, 14), (88, 11), (74, 9)),
    "renal_cortex": ((32, 4), (165, 22), (172, 18), (148, 15)),
    "renal_medulla": ((31, 4), (78, 16), (148, 18), (144, 15)),
    "urine": ((6, 4), (8, 5), (16, 8), (320, 120)),
    "aorta": ((41, 5), (270, 45), (148, 16), (112, 12)),
    "portal_vein": ((41, 5), (118, 26), (150, 18), (112, 12)),
    "vena_cava": ((41, 5), (88, 20), (128, 16), (110, 11)),
    "heart": ((41, 5), (200, 35), (140, 15), (110, 10)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CtNumbers:
    """The contrast ``phase`` of a case and the HU it gives to each tissue."""

    phase: str
    hu: dict[str, float]

    def __getitem__(self, tissue: str) -> float:
        return self.hu[tissue]


def draw_ct_numbers(rng: np.random.Generator) -> CtNumbers:
    """A random phase, and a random patient's CT numbers in it (within two spreads of the mean)."""
    index = int(rng.choice(len(PHASES), p=PHASE_WEIGHTS))
    table = PLAIN_HU | {tissue: rows[index] for tissue, rows in PHASE_HU.items()}
    # one draw per tissue in a fixed order
    hu = {
        tissue: float(mean + spread * np.clip(rng.standard_normal(), -2, 2))
        for tissue, (mean, spread) in table.items()
    }
    return CtNumbers(phase=PHASES[index], hu=hu)
