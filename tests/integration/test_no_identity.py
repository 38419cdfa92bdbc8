"""Who a patient is stays in the DICOM files: planted canaries are looked for in all that commands leave."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from tests import downloads
from tests.cohorts import TINY_RECIPE
from tests.command import ct_attn
from tests.unit.scan_io.dicom_files import write_series

#: In every header; each is found nowhere by chance.
CANARIES = {
    "PatientName": "Kanarienvogel^Quirin",
    "PatientID": "CANARY-0815-XQ",
    "OtherPatientIDs": "CANARY-OTHER-77",
    "PatientBirthDate": "19030417",
    "PatientAddress": "Zwitscherweg 9",
    "StudyDate": "20190823",
    "SeriesDate": "20190824",
    "AcquisitionDate": "20190825",
    "ContentDate": "20190826",
    "StudyTime": "031415.926535",
    "AccessionNumber": "ACC-CANARY-31",
    "InstitutionName": "Voliere General",
    "ReferringPhysicianName": "Papagei^Paula",
    "OperatorsName": "Sittich^Sven",
    "StudyDescription": "canary abdomen study",
    "SeriesDescription": "canary portal venous",
    "StudyID": "STUDY-CANARY",
}
N_CASES = 4


def write_dicom(folder: Path, seed: int) -> None:
    volume, _ = downloads.patient(seed)
    spacing, first = volume.grid.spacing_mm, volume.grid.affine[:3, 3] * [-1, -1, 1]
    write_series(
        folder,
        positions=[(*first[:2], first[2] + index * spacing[2]) for index in range(volume.grid.shape[2])],
        stored=(volume.hu.T.astype(np.int32) + 1024).astype(np.int16),
        fields={"PixelSpacing": [spacing[1], spacing[0]], **CANARIES},
    )


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The download, all that the commands made of it, and all they said."""
    folder = tmp_path_factory.mktemp("road")
    download, made = folder / "secret_download", folder / "made"
    for seed in range(1, N_CASES + 1):
        write_dicom(download / "scans" / f"case{seed}", seed)
        _, mask = downloads.patient(seed)
        downloads.write_label(
            download / "labels" / f"case{seed}.nii.gz", mask.labels, downloads.patient(seed)[0].grid.affine
        )
    made.mkdir()
    (made / "recipe.yaml").write_text(TINY_RECIPE)
    manifest, model = made / "data" / "manifest.json", made / "run" / "model"
    codes = "pancreas=1,spleen=2,left_kidney=3,right_kidney=4"
    said = ""
    for words in (
        ("prepare", "folder", "--images", download / "scans", "--labels", download / "labels",
         "--labels-map", codes, "--folds", 2, "-o", made / "data"),
        ("check", manifest),
        ("plan", "--data", manifest, "-o", made / "planned.yaml"),
        ("train", made / "recipe.yaml", "--data", manifest, "-o", made / "run", "--set", "training.epochs=2"),
        ("predict", "-m", model, "-i", download / "scans", "-o", made / "masks", "--attention"),
        ("predict", "-m", model, "-i", download / "scans" / "case1", "-o", made / "one.nii.gz"),
        ("evaluate", "--truth", download / "labels", "--predicted", made / "masks", "-o", made / "blind"),
        ("evaluate", "--truth", made / "data" / "labelsTr", "--predicted", made / "masks", "-o", made / "a"),
        ("compare", f"first={made / 'blind'}", f"second={made / 'a'}", "-o", made / "comparison"),
        ("doctor",),
    ):  # fmt: skip
        done = ct_attn(*words)
        assert done.returncode == 0, (words, done.stderr)
        said += done.stdout + done.stderr
    illustrated = made / "illustrated"
    for fold in (0, 1):
        validated = {case["case_id"] for case in cases_of(manifest) if case["fold"] == fold}
        masks = made / f"masks{fold}"
        masks.mkdir()
        for case_id in validated:
            (masks / f"{case_id}.nii.gz").write_bytes((made / "masks" / f"{case_id}.nii.gz").read_bytes())
        done = ct_attn("evaluate", "--truth", manifest, "--fold", fold, "--predicted", masks,
                       "--attention", made / "masks", "-o", illustrated / f"fold{fold}")  # fmt: skip
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    return download, made, said


def cases_of(manifest: Path) -> list[dict[str, object]]:
    return json.loads(manifest.read_text())["training"]


def unpacked(content: bytes) -> bytes:
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def contents(made: Path) -> dict[str, bytes]:
    """All files by their place, unpacked, with what an HTML page holds in base64 behind it."""
    found = {}
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        content = unpacked(path.read_bytes())
        if path.suffix == ".html":
            packed = re.findall(rb"[A-Za-z0-9+/]{400,}={0,2}", content)
            content += b"".join(unpacked(b64decode(one)) for one in packed)
        found[str(path.relative_to(made))] = content
    return found


def test_no_command_lets_an_identity_out(road):
    _, made, said = road
    files = contents(made)
    assert {"data/contact_sheet.html", "run/report.html", "a/scores.json", "comparison/report.html",
            "illustrated/fold0/report.html", "masks/case1.nii.gz"} <= set(files)  # fmt: skip
    assert b"viewer-data" in files["illustrated/fold0/report.html"]
    assert b"Coefficient of gate" in files["illustrated/fold0/report.html"]
    for keyword, canary in CANARIES.items():
        parts = [part for part in re.split(r"\^", canary) if len(part) > 4]
        for secret in (canary, *parts):
            assert secret not in said, keyword
            for name, content in files.items():
                assert secret not in name, (keyword, name)
                assert secret.encode() not in content, (keyword, name)
                assert secret.encode("utf-16-le") not in content, (keyword, name)


def test_no_report_or_record_says_where_files_lay(road):
    download, made, _ = road
    for name, content in contents(made).items():
        if Path(name).suffix in (".html", ".json", ".jsonl", ".csv", ".md", ".tex", ".yaml"):
            for place in (download, made, Path.home()):
                assert str(place).encode() not in content, (name, place)


def test_the_canaries_are_in_what_was_read(road):
    """Or the tests above would prove nothing."""
    download, _, _ = road
    for scan in (download / "scans").iterdir():
        header = next(scan.iterdir()).read_bytes()
        assert all(canary.encode() in header for canary in CANARIES.values())
