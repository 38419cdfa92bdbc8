"""Miniature downloads: the folders, names and quirks of public data sets, filled with the phantom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image

from ct_attn.datasets.phantom import PhantomConfig, draw_case
from ct_attn.labels import DISK_SCHEME
from ct_attn.volume import Grid, Mask, Volume
from tests.unit.scan_io.dicom_files import write_series

PIXEL_MM, SLICE_MM = 4.0, 5.0
COARSE = PhantomConfig(
    in_plane_spacing_mm=(PIXEL_MM, PIXEL_MM),
    slice_spacing_mm=(SLICE_MM, SLICE_MM),
    orientations=("LPS",),
    oblique_probability=0,
    padding_probability=0,
)
PANCREAS, SPLEEN, LEFT_KIDNEY, RIGHT_KIDNEY = DISK_SCHEME.codes.values()


@cache
def patient(seed: int) -> tuple[Volume, Mask]:
    """The organs of a phantom with some body around them, LPS."""
    case = draw_case(seed, COARSE)
    found = np.argwhere(case.mask.labels)
    margin = np.array([5, 5, 2])
    start = np.maximum(found.min(axis=0) - margin, 0)
    stop = np.minimum(found.max(axis=0) + 1 + margin, case.mask.grid.shape)
    box = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
    affine = case.mask.grid.affine.copy()
    affine[:3, 3] = case.mask.grid.to_mm(start)
    labels = np.ascontiguousarray(case.mask.labels[box])
    grid = Grid(shape=labels.shape, affine=affine)
    return Volume(hu=np.ascontiguousarray(case.volume.hu[box]), grid=grid), Mask(labels=labels, grid=grid)


def write_dicom(
    folder: Path,
    volume: Volume,
    names: Sequence[str] | None = None,
    fields: Mapping[str, object] | None = None,
) -> None:
    """``volume`` (LPS) as one DICOM series of axial slices."""
    columns, rows, slices = volume.grid.shape
    first = volume.grid.affine[:3, 3] * [-1, -1, 1]
    spacing = volume.grid.spacing_mm
    write_series(
        folder,
        positions=[(*first[:2], first[2] + index * spacing[2]) for index in range(slices)],
        stored=(volume.hu.T.astype(np.int32) + 1024).astype(np.int16),
        names=names or [f"1-{index + 1:03d}.dcm" for index in range(slices)],
        fields={"PixelSpacing": [spacing[1], spacing[0]], "StudyDate": "20151124", **(fields or {})},
    )
    assert (columns, rows) == volume.hu.shape[:2]


def write_label(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Nifti1Image(labels, affine).to_filename(path)


def write_scan(path: Path, volume: Volume) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Nifti1Image(volume.hu, volume.grid.affine).to_filename(path)


def recoded(mask: Mask, codes: Mapping[int, int]) -> np.ndarray:
    """The labels with each key's voxels in its value; others become background."""
    labels = np.zeros_like(mask.labels)
    for ours, theirs in codes.items():
        labels[mask.labels == ours] = theirs
    return labels


#: What the archive's headers say: spacing and nothing more, so that y seems to run to the front.
def stamped(volume: Volume) -> np.ndarray:
    return np.diag([*volume.grid.spacing_mm, 1.0])


def make_pancreas_ct(folder: Path) -> tuple[Path, Path, Path]:
    """TCIA Pancreas-CT as NBIA and idc-index lay it out; folders of images, labels, multi-organ labels.

    1: the header of the label says nothing, so it seems flipped both ways in plane.
    2: the header is right. 3: the series is missing. 4: slices sort wrongly by name.
    5: the label is on no organ. 6: as idc-index lays it out, the label upside down.
    25, 70: withdrawn. 83: there is no such case. All other cases are missing.
    """
    images, labels, more = folder / "Pancreas-CT", folder / "TCIA_pancreas_labels-02-05-2017", folder / "more"
    for number in (1, 2, 4, 5, 25):
        volume, _ = patient(2 if number == 25 else number)
        series = images / f"PANCREAS_{number:04d}" / f"11-24-2015-PANCREAS{number:04d}-Pancreas-18957"
        names = None
        if number == 4:
            names = [f"1-{volume.grid.shape[2] - index}.dcm" for index in range(volume.grid.shape[2])]
        write_dicom(series / "Pancreas-63502", volume, names)
    (images / "PANCREAS_0003" / "11-24-2015-PANCREAS0003-Pancreas-13649" / "Pancreas-18957").mkdir(
        parents=True
    )
    volume, _ = patient(6)
    idc = images / "PANCREAS_0006" / "1.2.826.0.1" / "CT_1.2.826.0.2"
    write_dicom(idc, volume, [f"{index * 7919 % 9973:08x}.dcm" for index in range(volume.grid.shape[2])])
    (idc.parent / "SEG_1.2.826.0.3").mkdir()
    (idc.parent / "SEG_1.2.826.0.3" / "0.dcm").write_bytes(b"not read")
    for number in (1, 2, 3, 4, 5, 6, 25, 70, 83):
        volume, mask = patient(number if number <= 6 else 2)
        pancreas = recoded(mask, {PANCREAS: 1})
        affine = stamped(volume) if number == 1 else volume.grid.affine
        if number == 5:
            pancreas[:] = 0
            pancreas[12:20, 12:20, 12:20] = 1
        if number == 6:
            pancreas = pancreas[:, :, ::-1]
        write_label(labels / f"label{number:04d}.nii.gz", pancreas, affine)
    for number in (1, 4, 25):
        volume, mask = patient(number if number <= 6 else 2)
        organs = recoded(mask, {PANCREAS: 11, SPLEEN: 1, LEFT_KIDNEY: 3})
        organs[:3, :3, :3] = 6  # a piece of liver, which is not taken over
        write_label(more / "label_tcia_multiorgan" / f"label{number:04d}.nii.gz", organs, stamped(volume))
    return images, labels, more


def make_msd(folder: Path, *, task: str = "pancreas") -> Path:
    """Task07 or Task09 as unpacked on a Mac: files that begin with "._" lie among the others."""
    root = folder / ("Task07_Pancreas" if task == "pancreas" else "Task09_Spleen")
    names = [f"{task}_{number:03d}" for number in (1, 2, 10)]
    for name, seed in zip(names, (1, 2, 4), strict=True):
        volume, mask = patient(seed)
        write_scan(root / "imagesTr" / f"{name}.nii.gz", volume)
        labels = recoded(mask, {PANCREAS: 1} if task == "pancreas" else {SPLEEN: 1})
        if task == "pancreas":
            labels[tuple(np.argwhere(labels)[:20].T)] = 2  # a tumour
        write_label(root / "labelsTr" / f"{name}.nii.gz", labels, volume.grid.affine)
        for part in ("imagesTr", "labelsTr"):
            (root / part / f"._{name}.nii.gz").write_bytes(b"\0\5\x16\7")
    named = {"0": "background", "1": "pancreas", "2": "cancer"}
    listed = [*names, f"{task}_011"]
    content = {
        "name": task.capitalize(),
        "labels": named if task == "pancreas" else {"0": "background", "1": "spleen"},
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in listed
        ],
        "test": [f"./imagesTs/{task}_003.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def make_btcv(folder: Path) -> Path:
    root = folder / "RawData"
    for number, seed in ((1, 1), (2, 2), (61, 4)):
        volume, mask = patient(seed)
        part = root / ("Training" if number < 61 else "Testing")
        write_scan(part / "img" / f"img{number:04d}.nii.gz", volume)
        if number < 61:
            organs = recoded(mask, {SPLEEN: 1, RIGHT_KIDNEY: 2, LEFT_KIDNEY: 3, PANCREAS: 11})
            organs[:3, :3, :3] = 6
            write_label(part / "label" / f"label{number:04d}.nii.gz", organs, volume.grid.affine)
    return root


def make_amos(folder: Path) -> Path:
    root = folder / "amos22"
    for number, seed, part in ((1, 1, "Tr"), (507, 2, "Tr"), (13, 4, "Va")):
        volume, mask = patient(seed)
        write_scan(root / f"images{part}" / f"amos_{number:04d}.nii.gz", volume)
        organs = recoded(mask, {SPLEEN: 1, RIGHT_KIDNEY: 2, LEFT_KIDNEY: 3, PANCREAS: 10})
        write_label(root / f"labels{part}" / f"amos_{number:04d}.nii.gz", organs, volume.grid.affine)
    labels = "background,spleen,right kidney,left kidney,gall bladder,esophagus,liver,stomach,arota,postcava"
    labels += ",pancreas,right adrenal gland,left adrenal gland,duodenum,bladder,prostate/uterus"
    content = {"name": "AMOS", "labels": {str(code): name for code, name in enumerate(labels.split(","))}}
    (root / "dataset.json").write_text(json.dumps(content | {"training": [], "validation": []}))
    return root


def make_folder(folder: Path) -> tuple[Path, Path]:
    images, labels = folder / "scans", folder / "labels"
    for name, seed in (("anna", 1), ("bert", 2), ("bert-2", 2)):
        volume, mask = patient(seed)
        write_scan(images / f"{name}.nii.gz", volume)
        organs = recoded(mask, {PANCREAS: 1, LEFT_KIDNEY: 3, SPLEEN: 7})
        write_label(labels / f"{name}.nii.gz", organs, volume.grid.affine)
    return images, labels


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))
