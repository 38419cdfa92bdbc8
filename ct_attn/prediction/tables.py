"""The statistics of many scans as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ct_attn import atomic
from ct_attn.prediction.statistics import OrganStatistics

AXES = ("r", "a", "s")
HEADER = (
    "case_id", "organ", "voxels", "volume_ml", "mean_hu", "std_hu",
    *(f"extent_{axis}_mm" for axis in AXES), *(f"centroid_{axis}_mm" for axis in AXES),
    "cut", "doubts", "confidence",
)  # fmt: skip


def write_statistics(of_cases: Mapping[str, Sequence[OrganStatistics]], csv_path: Path) -> tuple[Path, Path]:
    """Write a row per case and organ into ``csv_path``, and the same as JSON beside it; both paths.

    In the CSV, what is not known is empty; several words of ``cut`` or ``doubts`` are joined by spaces.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for case_id, organs in of_cases.items():
        writer.writerows(_row(case_id, organ) for organ in organs)
    atomic.write_text(csv_path, text.getvalue())
    json_path = csv_path.with_suffix(".json")
    cases = {
        case_id: [organ.model_dump(mode="json") for organ in organs] for case_id, organs in of_cases.items()
    }
    atomic.write_text(
        json_path, json.dumps({"format": "ct_attn statistics 1", "cases": cases}, indent=1) + "\n"
    )
    return csv_path, json_path


def _row(case_id: str, organ: OrganStatistics) -> list[str]:
    return [
        case_id,
        organ.organ,
        str(organ.voxels),
        *_numbers([organ.volume_ml], 3),
        *_numbers([organ.mean_hu, organ.std_hu], 2),
        *_numbers(organ.extent_mm or [None] * 3, 2),
        *_numbers(organ.centroid_mm or [None] * 3, 2),
        " ".join(organ.cut),
        " ".join(organ.doubts),
        *_numbers([organ.confidence], 4),
    ]


def _numbers(values: Sequence[float | None], digits: int) -> list[str]:
    return ["" if value is None else f"{value:.{digits}f}" for value in values]
