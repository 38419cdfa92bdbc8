"""Who a patient is stays in the DICOM files: planted canaries are looked for in all that commands leave."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from tests import downloads
from tests.cohorts import TINY_RECIPE
from tests.command import ct_attn

UID_ROOT = "1.2.826.0.1.3680043.9.7718281"
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
    "InstanceCreationDate": "20190827",
    "StudyTime": "031415.926535",
    "AccessionNumber": "ACC-CANARY-31",
    "InstitutionName": "Voliere General",
    "ReferringPhysicianName": "Papagei^Paula",
    "OperatorsName": "Sittich^Sven",
    "StudyDescription": "canary abdomen study",
    "SeriesDescription": "canary portal venous",
    "StudyID": "STUDY-CANARY",
}
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
PRIVATE = "private canary Zeisig"
#: What a folder and its slices are called where people name them after patients.
TELLING, TELLING_FILE = "Kanarienvogel_Quirin", "Kanarienvogel"
CODES = "pancreas=1,spleen=2,left_kidney=3,right_kidney=4"
RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "paper"
MINIATURE = (
    "preprocessing.spacing_mm=[16,16,16]", "training.patch_size=[16,16,16]", "training.epochs=1",
    "training.validate_every=1", "training.batches_per_epoch=1", "inference.overlap=0",
)  # fmt: skip


def secrets() -> Iterator[tuple[str, str]]:
    """What may be found nowhere, with what it is: whole, its parts, dates as people write them."""
    yield "UID", UID_ROOT
    yield "private tag", PRIVATE
    yield "folder", TELLING
    for keyword, canary in CANARIES.items():
        yield keyword, canary
        yield from ((keyword, part) for part in canary.split("^") if len(part) > 4)
        if keyword.endswith("Date"):
            year, month, day = canary[:4], canary[4:6], canary[6:]
            yield keyword, f"{year}-{month}-{day}"
            yield keyword, f"{day}.{month}.{year}"


def write_dicom(folder: Path, seed: int) -> None:
    """A drawn patient with every canary in every header, one of the slices' files named after them."""
    volume, _ = downloads.patient(seed)
    uids = {keyword: f"{UID_ROOT}.{number}.{seed}" for number, keyword in enumerate(UIDS)}
    names = [f"{TELLING_FILE}_{index:03}.dcm" for index in range(volume.grid.shape[2])]
    downloads.write_dicom(folder, volume, names, CANARIES | uids)
    for index, path in enumerate(sorted(folder.iterdir())):
        header = pydicom.dcmread(path)
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = (
            f"{uids['SOPInstanceUID']}.{index}"
        )
        header.private_block(0x0099, "CANARIES", create=True).add_new(1, "LO", PRIVATE)
        header.save_as(path)


def write_label(path: Path, seed: int, codes: dict[int, int] | None = None) -> None:
    volume, mask = downloads.patient(seed)
    labels = mask.labels if codes is None else downloads.recoded(mask, codes)
    downloads.write_label(path, labels, volume.grid.affine)


def damage(slice_file: Path) -> None:
    slice_file.write_bytes(slice_file.read_bytes()[:-40])


@dataclass
class Road:
    """The ``download``, all that commands ``made`` of it, and all they ``said``."""

    download: Path
    made: Path
    said: str = ""

    def go(self, *words: object, code: int = 0) -> None:
        done = ct_attn(*words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        self.said += done.stdout + done.stderr


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    folder = tmp_path_factory.mktemp("road")
    road = Road(download=folder / "secret_download", made=folder / "made")
    road.made.mkdir()
    (road.made / "recipe.yaml").write_text(TINY_RECIPE)
    prepare(road)
    train(road)
    predict(road)
    evaluate(road)
    return road


def prepare(road: Road) -> None:
    download, made = road.download, road.made
    for seed, name in enumerate(("case1", "case2", "case3", TELLING), start=1):
        write_dicom(download / "scans" / name, seed)
        write_label(download / "labels" / f"{name}.nii.gz", seed)
    for number in (1, 2):
        series = download / "Pancreas-CT" / f"PANCREAS_{number:04d}" / f"08-23-2019-{TELLING}"
        write_dicom(series / "canary portal venous", number)
        write_label(download / "labels82" / f"label{number:04d}.nii.gz", number, {downloads.PANCREAS: 1})
    folders = ("--images", download / "scans", "--labels", download / "labels", "--labels-map", CODES)
    key = ("--pseudonyms", download / "key.csv")
    road.go("prepare", "folder", *folders, "--folds", 2, "-o", made / "refused", code=2)
    road.go("prepare", "folder", *folders, "--folds", 2, "-o", made / "data", *key)
    road.go("prepare", "pancreas-ct", "--images", download / "Pancreas-CT", "--labels", download / "labels82",
            "-o", made / "pancreas_ct")  # fmt: skip
    road.go("check", made / "data" / "manifest.json")
    broken = shutil.copytree(download, download / "broken")
    damage(sorted((broken / "scans" / "case1").iterdir())[1])
    sorted((broken / "scans" / "case2").iterdir())[2].unlink()
    two_series(broken / "scans" / "case3")
    folders = ("--images", broken / "scans", "--labels", broken / "labels", "--labels-map", CODES)
    road.go("prepare", "folder", *folders, "--folds", 2, "-o", made / "partly", *key, code=1)


def two_series(folder: Path) -> None:
    """Put another series beside the one in ``folder``."""
    write_dicom(folder.with_name("other"), 4)
    for path in folder.with_name("other").iterdir():
        path.rename(folder / f"other_{path.name}")
    folder.with_name("other").rmdir()


def train(road: Road) -> None:
    manifest, made = road.made / "data" / "manifest.json", road.made
    road.go("plan", "--data", manifest, "-o", made / "planned.yaml")
    road.go("train", made / "recipe.yaml", "--data", manifest, "-o", made / "run", "--fold", "all",
            "--set", "training.epochs=2")  # fmt: skip
    road.go("summarize", made / "run", "-o", made / "summary")
    road.go("calibrate", "-m", made / "run" / "fold_0" / "model", "--data", manifest)
    changes = [word for change in MINIATURE for word in ("--set", change)]
    road.go("reproduce", "--data", manifest, "-o", made / "paper", "--recipes", RECIPES,
            "--only", "ct82_scr_unet", *changes)  # fmt: skip


def predict(road: Road) -> None:
    download, made = road.download, road.made
    model, scans = ("-m", made / "run" / "fold_0" / "model"), download / "scans"
    everything = ("--attention", "--features", "--preview", "--probabilities", "--statistics")
    road.go("predict", *model, "-i", scans, "-o", made / "masks", *everything, code=1)
    road.go("predict", *model, "-i", scans / TELLING, "-o", made / "one" / "one.nii.gz", *everything)
    road.go("predict", *model, "-i", scans / TELLING, "-o", made / "none", code=2)
    road.go("status", "-i", scans, "-o", made / "masks", *model, code=1)
    road.go("predict", *model, "-i", download / "broken" / "scans", "-o", made / "failed", code=1)
    road.go("status", "-i", download / "broken" / "scans", "-o", made / "failed", code=1)
    road.go("doctor")


def evaluate(road: Road) -> None:
    made, manifest = road.made, road.made / "data" / "manifest.json"
    cases = [case for case in json.loads(manifest.read_text())["training"] if case["fold"] == 0]
    images = [word for case in cases for word in ("-i", manifest.parent / case["image"])]
    truth, runs = ("--truth", manifest, "--fold", 0), []
    for fold in (0, 1):
        masks, scores = made / f"predicted_{fold}", made / f"scores_{fold}"
        road.go("predict", "-m", made / "run" / f"fold_{fold}" / "model", *images, "-o", masks, "--attention")
        road.go("evaluate", *truth, "--predicted", masks, "-o", scores, "--per-slice", "--side-by-side")
        runs.append((f"fold{fold}={scores}", f"fold{fold}={masks}"))
    road.go("evaluate", "--truth", manifest.parent / "labelsTr", "--predicted", made / "predicted_0",
            "-o", made / "blind", code=2)  # fmt: skip
    road.go("compare", *(scores for scores, _ in runs), "-o", made / "comparison", "--pictures", 1, *truth,
            *(word for _, masks in runs for word in ("--predicted", masks)))  # fmt: skip


def unpacked(content: bytes) -> bytes:
    """``content`` with what is packed in it, however deep: gzip, and zip as ``.npz`` and checkpoints are."""
    if content[:2] == b"\x1f\x8b":
        return unpacked(gzip.decompress(content))
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [name.encode() + b"\n" + unpacked(archive.read(name)) for name in archive.namelist()]
        return b"\n".join(members)
    return content


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


@pytest.fixture(scope="module")
def files(road: Road) -> dict[str, bytes]:
    return contents(road.made)


@pytest.mark.slow
def test_every_command_left_what_is_searched(road, files):
    """Or the tests below would prove nothing of it."""
    assert {
        "data/contact_sheet.html", "data/manifest.json", "data/provenance.jsonl", "pancreas_ct/manifest.json",
        "partly/contact_sheet.html", "planned.yaml", "run/fold_0/report.html", "run/fold_1/log.csv",
        "run/cross_validation.json", "summary/report.html", "run/fold_0/model/calibration.html",
        "paper/data/target.json", "paper/reproduce.html", "masks/case1.nii.gz", "masks/case1.png",
        "masks/case1_features.png", "masks/statistics.csv", "masks/unnamed_0001.failed.json",
        "one/one_statistics.csv", "failed/case1.failed.json", "failed/case2.failed.json",
        "failed/case3.failed.json", "scores_0/scores.json", "scores_0/slices.csv", "comparison/report.html",
    } <= set(files)  # fmt: skip
    assert not {"none", "refused", "blind"} & {name.partition("/")[0] for name in files}
    assert b"viewer-data" in files["scores_0/report.html"]
    assert b"Coefficient of gate" in files["scores_0/report.html"]
    assert list((road.made / "scores_0" / "pictures").iterdir())
    assert "2 series" in files["failed/case3.failed.json"].decode()
    assert road.said.count("refused: ") == 3


@pytest.mark.slow
def test_no_command_lets_an_identity_out(road, files):
    for what, secret in secrets():
        assert secret not in road.said, what
        for name, content in files.items():
            assert secret not in name, (what, name)
            assert secret.encode() not in content, (what, name)
            assert secret.encode("utf-16-le") not in content, (what, name)


@pytest.mark.slow
def test_no_file_says_where_files_lay(road, files):
    for place in (road.download, road.made, Path.home(), road.download.name):
        for name, content in files.items():
            assert str(place).encode() not in content, (name, place)


@pytest.mark.slow
def test_the_canaries_are_in_what_was_read(road):
    """Or the tests above would prove nothing."""
    for scan in (road.download / "scans").iterdir():
        header = next(scan.iterdir()).read_bytes()
        assert all(canary.encode() in header for canary in (*CANARIES.values(), PRIVATE))
        read = pydicom.dcmread(next(scan.iterdir()))
        assert all(read[keyword].value.startswith(UID_ROOT) for keyword in UIDS)


def test_what_is_packed_is_searched():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner.npy", gzip.compress(b"a canary"))
    assert b"a canary" in unpacked(gzip.compress(archive.getvalue()))
