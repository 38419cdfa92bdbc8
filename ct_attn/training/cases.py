"""Cases as MONAI reads them: our door to files behind ``LoadImage``, then the one preprocessing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader
from monai.transforms import LoadImage, MapTransform
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.labels import ORGANS, LabelScheme, known_classes, recode
from ct_attn.manifest import Case
from ct_attn.preprocessing import PreprocessingConfig, prepare, prepare_mask
from ct_attn.scan_io import nifti
from ct_attn.scan_io.nifti import require_known_codes
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Grid, Mask, Volume, require_same_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFiles:
    """Where a case's scan and label map are, and which organs the label map was made for."""

    case_id: str
    image: Path
    label: Path
    labelled_organs: tuple[str, ...] = ORGANS


def locate(cases: Sequence[Case], manifest: Path) -> list[CaseFiles]:
    """The files of ``cases``, whose paths are relative to the manifest's folder.

    Raises :class:`UserError` naming the first file that is missing.
    """
    files = [
        CaseFiles(
            case_id=case.case_id,
            image=manifest.parent / case.image,
            label=manifest.parent / case.label,
            labelled_organs=case.labelled_organs,
        )
        for case in cases
    ]
    for file in (path for case in files for path in (case.image, case.label)):
        if not file.exists():
            raise UserError(
                file,
                expected=f"a file that {manifest} lists",
                found="no such file",
                remedy="restore it or mend the manifest",
            )
    return files


def check_labelled(cases: Sequence[Case], scheme: LabelScheme, manifest: Path) -> None:
    """Refuse a target of ``scheme`` of which no case labels any part: nothing would teach it."""
    labelled = {organ for case in cases for organ in case.labelled_organs}
    for structure in scheme.structures:
        if not labelled & set(structure.organs):
            raise UserError(
                manifest,
                expected=f"a training case that labels {structure.name}",
                found=f"none that labels {' or '.join(structure.organs)}",
                remedy=f"leave {structure.name} out of the recipe's targets",
            )


class ScanReader(ImageReader):
    """MONAI's view of our door to scans: arrays [I, J, K] with a voxel -> RAS affine."""

    def verify_suffix(self, filename: Any) -> bool:
        return True

    def read(self, data: Any, **kwargs: Any) -> Volume | Mask:
        return read_scan(_only_path(data))

    def get_data(self, img: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        array = img.labels if isinstance(img, Mask) else img.hu
        grid: Grid = img.grid
        meta = {"affine": np.array(grid.affine), "spatial_shape": np.array(grid.shape), "space": "RAS"}
        return array, meta | {"original_channel_dim": "no_channel"}


class LabelReader(ScanReader):
    """The same for label maps, whose codes must be those of ``scheme``."""

    def __init__(self, scheme: LabelScheme) -> None:
        self.scheme = scheme

    def read(self, data: Any, **kwargs: Any) -> Mask:
        path = _only_path(data)
        mask, _ = nifti.read_mask(path)
        require_known_codes(mask, self.scheme, path)
        return mask


class LoadCased(MapTransform):
    """``image`` and ``label`` of a :class:`CaseFiles` as MetaTensors [1, I, J, K]."""

    def __init__(self, source: LabelScheme) -> None:
        super().__init__(keys=("image", "label"))
        self.load = _monai_loader()
        self.readers = {"image": ScanReader(), "label": LabelReader(source)}

    def __call__(self, data: CaseFiles) -> dict[Hashable, Any]:
        # The reader goes with the call: one that is registered is skipped without a word
        # when it raises, and MONAI's own readers accept what ours refuses.
        loaded: dict[Hashable, Any] = {
            key: self.load(getattr(data, key), reader=reader) for key, reader in self.readers.items()
        }
        return {"files": data, **loaded}


class Preparedd(MapTransform):
    """``image`` and ``label`` onto the working grid, labels into the codes of ``target``.

    Both become tensors [1, I', J', K']: the image float16 (a cohort must fit in memory,
    and 11 bits tell 0.2 HU apart in a 400 HU window), the labels uint8. ``known`` bool
    [C] says which classes the case labels in full; ``spacing_mm`` is the working grid's.
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
            "known": torch.tensor(known_classes(self.target, files.labelled_organs)),
            "spacing_mm": prepared.grid.spacing_mm,
        }


def loading(
    source: LabelScheme, preprocessing: PreprocessingConfig, target: LabelScheme
) -> Callable[[CaseFiles], dict[Hashable, Any]]:
    """The transform from :class:`CaseFiles` to what :class:`Preparedd` gives.

    ``source`` are the codes of the label files, ``target`` those of the network.
    """
    load, prepare_both = LoadCased(source), Preparedd(preprocessing, source=source, target=target)
    # Not MONAI's Compose: it would bury a UserError in a RuntimeError of its own.
    return lambda case: prepare_both(load(case))


def _monai_loader() -> LoadImage:
    """MONAI's loader, less the notices about readers of its own that are never used."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return LoadImage(image_only=True, ensure_channel_first=True, dtype=None)


def _only_path(data: Any) -> Path:
    """MONAI hands over a tuple of paths; a case is one."""
    (path,) = data
    return Path(path)


def _array(image: Any, dtype: Any) -> NDArray[Any]:
    return np.asarray(image[0], dtype=dtype)


def _grid(image: Any) -> Grid:
    i, j, k = image.shape[1:]
    return Grid(shape=(i, j, k), affine=np.asarray(image.affine, dtype=np.float64))
