"""The interactive viewer of a report: NiiVue and the cases it shows, all inside the page."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ct_attn.report.legend import colour_of, display_name
from ct_attn.report.reduced import ReducedCase

_VENDOR = files("ct_attn.report").joinpath("vendor")
SCRIPT_NAME, LICENCE_NAME = "niivue.umd.js", "niivue.LICENSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerParts:
    """What the page's viewer is made of.

    ``script``: NiiVue as base64 of gzip, which the browser unpacks when a reader asks for
    the viewer. ``cases`` becomes the JSON that ``viewer.js`` reads.
    """

    script: str
    licence: str
    cases: list[dict[str, Any]]


def viewer_parts(cases: Mapping[str, ReducedCase]) -> ViewerParts | None:
    """The parts for ``cases``, by the name they get in the list; None without any."""
    if not cases:
        return None
    return ViewerParts(
        script=_packed_script(),
        licence=_VENDOR.joinpath(LICENCE_NAME).read_text(encoding="utf-8"),
        cases=[_case(name, case) for name, case in cases.items()],
    )


@cache
def _packed_script() -> str:
    return b64encode(gzip.compress(_VENDOR.joinpath(SCRIPT_NAME).read_bytes(), 9, mtime=0)).decode("ascii")


def _case(name: str, case: ReducedCase) -> dict[str, Any]:
    colours = colour_of(case.scheme.names)
    return {
        "name": name,
        "scan": case.scan,
        "truth": case.truth,
        "predicted": case.predicted,
        "step_mm": [round(step, 2) for step in case.step_mm],
        "organs": [
            {"code": one.code, "name": display_name(one.name), "colour": colours[one.name]}
            for one in case.scheme.structures
        ],
    }
