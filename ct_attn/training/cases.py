"""Cases as MONAI reads them: our door to files behind ``LoadImage``, then the one preprocessing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader
from monai.transforms import Compose, LoadImaged, MapTransform
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme, recode
from ct_attn.manifest import Case
from ct_attn.preprocessing import PreprocessingConfig, prepare, prepare_mask
from ct_attn.scan_io import nifti
from ct_attn.scan_io.nifti import require_known_codes
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Grid, Mask, Volume, require_same_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFiles:
    """Where a case's scan and label map are."""

    case_id: str
    image: Path
    label: Path


def locate(cases: Sequence[Case], manifest: Path) -> list[CaseFiles]:
    """The files of ``cases``, whose paths are relative to the manifest's folder.

    Raises :class:`UserError` naming the first file that is missing.
    """
    files = [
        CaseFiles(case_id=case.case_id, image=manifest.parent / case.image, label=manifest.parent / case.label)
        for case in cases
    ]
    for file in (path for case in files for path in (case.image, case.label)):
        if not file.exists():
            raise UserError(
                file, expected=f"a file that {manifest} lists", found="no such file", remedy="restore it or mend the manifest"
            )
    return files


def check_labelled(cases: Sequence[Case], scheme: LabelScheme, manifest: Path) -> None:
    """Refuse a case that leaves an organ unlabelled which ``scheme`` predicts.

    It would teach that organ as background.
    """
    for case in cases:
        wanted = {organ for structure in scheme.structures for organ in structure.organs}
        unlabelled = sorted(wanted - set(case.labelled_organs))
        if unlabelled:
            raise UserError(
                manifest,
                expected=f"labels of every organ in the recipe's targets for case {case.case_id}",
                found=f"{', '.join(unlabelled)} not labelled",
                remedy="leave the organ out of the targets or the case out of the manifest",
            )


class ScanReader(ImageReader):
    """MONAI's view of :mod:`ct_attn.scan_io`: arrays [I, J, K] with a voxel -> RAS affine.

    A path under ``label_paths`` is read as a label map, whose codes must be those of
    ``scheme``; any other as a CT scan.
    """

    def __init__(self, *, scheme: LabelScheme, label_paths: frozenset[str]) -> None:
        self.scheme = scheme
        self.label_paths = label_paths

    def verify_suffix(self, filename: Any) -> bool:
        return True

    def read(self, data: Any, **kwargs: Any) -> Volume | Mask:
        path = Path(str(data))
        if str(path) not in self.label_paths:
            return read_scan(path)
        mask, _ = nifti.read_mask(path)
        require_known_codes(mask, self.scheme, path)
        return mask

    def get_data(self, img: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        array = img.labels if isinstance(img, Mask) else img.hu
        return array, {"affine": img.grid.affine, "spatial_shape": np.array(img.grid.shape), "space": "RAS"}


class Preparedd(MapTransform):
    """``image`` and ``label`` onto the working grid, labels into the codes of ``target``.

    Both become tensors [1, I', J', K']: the image float16 (a cohort must fit in memory,
    and 11 bits tell 0.2 HU apart in a 400 HU window), the labels uint8.
    """

    def __init__(self, config: PreprocessingConfig, *, source: LabelScheme, target: LabelScheme) -> None:
        super().__init__(keys=("image", "label"))
        self.config = config
        self.source = source
        self.target = target

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        files = data["files"]
        scan = Volume(hu=_array(data["image"], np.float32), grid=_grid(data["image"]))
        mask = Mask(labels=_array(data["label"], np.uint8), grid=_grid(data["label"]))
        require_same_grid(mask.grid, scan.grid, subject=str(files.label), than=str(files.image))
        prepared = prepare(scan, self.config)
        labels = recode(prepare_mask(mask, self.config).labels, self.source, self.target)
        return {
            "case_id": files.case_id,
            "image": torch.from_numpy(prepared.image).to(torch.float16)[None],
            "label": torch.from_numpy(labels)[None],
        }


def loading(
    files: Sequence[CaseFiles], source: LabelScheme, preprocessing: PreprocessingConfig, target: LabelScheme
) -> Compose:
    """The transform that reads and prepares any of ``files`` (see :class:`Preparedd`)."""
    reader = ScanReader(scheme=source, label_paths=frozenset(str(case.label) for case in files))
    return Compose(
        [
            LoadImaged(keys=("image", "label"), reader=reader, dtype=None, ensure_channel_first=True),
            Preparedd(preprocessing, source=source, target=target),
        ]
    )


def as_item(case: CaseFiles) -> dict[str, Any]:
    """What :func:`loading` takes."""
    return {"image": str(case.image), "label": str(case.label), "files": case}


def _array(image: Any, dtype: Any) -> NDArray[Any]:
    return np.asarray(image[0], dtype=dtype)


def _grid(image: Any) -> Grid:
    i, j, k = image.shape[1:]
    return Grid(shape=(i, j, k), affine=np.asarray(image.affine, dtype=np.float64))
