"""One loader of training patches in a process of its own, asked for patches over a pipe.

Started by ``benchmarks/data.py``: ``data_loaders.py LOADER FOLDER`` prepares the volumes
in ``FOLDER``, says how long that took and what it cost, then answers lines such as
``light 3`` by drawing for 3 s: with the seconds per patch and the peak of memory meanwhile.
Each loader imports what it needs only, so nnU-Net may run in another interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

PATCH = (128, 128, 96)
SPACING_MM = (0.8, 0.8, 1.5)
WINDOW = (-160.0, 240.0)
N_CLASSES = 4
BATCH = 2
#: Turned, shifted and zoomed in plane; noise. And what nnU-Net does by default, as near as fields allow.
LIGHT: dict[str, Any] = {
    "affine_probability": 0.5, "shift_fraction": 0.1, "zoom": (0.7, 1.3), "rotation_degrees": 15.0,
    "intensity_probability": 0.5, "noise": 0.03, "brightness": 0.0, "contrast": 0.0, "gamma": 0.0,
    "resolution_probability": 0.0,
}  # fmt: skip
FULL: dict[str, Any] = LIGHT | {
    "affine_probability": 0.36, "rotation_degrees": 30.0, "zoom": (0.7, 1.4), "shift_fraction": 0.0,
    "flip_axes": ("R", "A", "S"), "intensity_probability": 0.2, "brightness": 0.1, "contrast": 0.25,
    "gamma": 0.5, "resolution_probability": 0.12, "blur_voxels": 1.0, "low_resolution": 1.0,
}  # fmt: skip
SETS = {"light": LIGHT, "full": FULL}

#: From the folder of volumes to what gives endless batches of a set of changes.
Loader = Callable[[Path], Callable[[str], Iterable[Any]]]


def cases(folder: Path) -> list[dict[str, Path]]:
    return [
        {"image": image, "label": image.with_name(image.name.replace("image", "label"))}
        for image in sorted(folder.glob("image_*.nii.gz"))
    ]


def ct_attn(folder: Path) -> Callable[[str], Iterable[Any]]:
    from torch.utils.data import DataLoader

    from ct_attn.labels import DISK_SCHEME
    from ct_attn.recipe import Recipe
    from ct_attn.training.cache import fill
    from ct_attn.training.cases import CaseFiles
    from ct_attn.training.patches import PatchDataset

    def recipe(name: str) -> Recipe:
        training = {
            "patch_size": PATCH, "batch_size": BATCH, "batches_per_epoch": 10**6, "augmentation": SETS[name],
        }  # fmt: skip
        preprocessing = {"spacing_mm": SPACING_MM, "hu_window": WINDOW}
        return Recipe.model_validate({"name": name, "preprocessing": preprocessing, "training": training})

    plain = recipe("light")
    files = [CaseFiles(case_id=paths["image"].name.split(".")[0], **paths) for paths in cases(folder)]
    cached = fill(
        files,
        folder / "ct_attn",
        source=DISK_SCHEME,
        target=plain.label_scheme,
        preprocessing=plain.preprocessing,
    )
    return lambda name: DataLoader(PatchDataset(cached, recipe(name), epoch=0), batch_size=BATCH)


def monai_steps() -> Any:
    from monai import transforms as m

    keys = ("image", "label")
    return m.Compose(
        [
            m.LoadImaged(keys, image_only=True, ensure_channel_first=True),
            m.Orientationd(keys, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            m.Spacingd(keys, pixdim=SPACING_MM, mode=("bilinear", "nearest")),
            m.ScaleIntensityRanged("image", *WINDOW, 0.0, 1.0, clip=True),
            m.MapLabelValued("label", [4], [3]),
            m.CastToTyped(keys, dtype=(torch.float32, torch.uint8)),
            # Without this, every patch would search its whole volume for the classes.
            m.ClassesToIndicesd("label", num_classes=N_CLASSES, max_samples_per_class=100_000),
        ]
    )


def monai_changes(name: str, n_patches: int = 1) -> Any:
    from monai import transforms as m

    keys, fields = ("image", "label"), SETS[name]
    often, seldom = fields["intensity_probability"], fields["resolution_probability"]
    zoom = tuple(side - 1 for side in fields["zoom"])
    shift = tuple(side * fields["shift_fraction"] for side in PATCH[:2])
    steps = [
        m.RandCropByLabelClassesd(
            keys,
            label_key="label",
            spatial_size=PATCH,
            num_classes=N_CLASSES,
            num_samples=n_patches,
            indices_key="label_cls_indices",
            warn=False,
        ),
        m.DeleteItemsd("label_cls_indices"),
        m.RandAffined(
            keys,
            prob=fields["affine_probability"],
            rotate_range=(0.0, 0.0, math.radians(fields["rotation_degrees"])),
            translate_range=(*shift, 0.0),
            scale_range=(zoom, zoom, (0.0, 0.0)),
            mode=("bilinear", "nearest"),
            padding_mode="border",
            spatial_size=PATCH,
            cache_grid=True,
        ),
        *(
            m.RandFlipd(keys, prob=0.5, spatial_axis="RAS".index(axis))
            for axis in fields.get("flip_axes", ())
        ),
    ]
    if name == "full":
        steps += [
            m.RandSimulateLowResolutiond("image", prob=seldom, zoom_range=(0.5, 1.0)),
            m.RandGaussianSmoothd("image", (0, 1.0), (0, 1.0), (0, 1.0), prob=seldom),
            m.RandShiftIntensityd("image", prob=often, offsets=fields["brightness"]),
            m.RandScaleIntensityFixedMeand("image", prob=often, factors=fields["contrast"]),
            m.RandAdjustContrastd("image", prob=often, gamma=(0.67, 1.5)),
        ]
    steps.append(m.RandGaussianNoised("image", prob=often, std=fields["noise"]))
    return m.Compose([*steps, m.ToTensord(keys, track_meta=False)])


def monai_batches(prepared: Any, n_patches: int = 1) -> Callable[[str], Iterable[Any]]:
    from monai.data import DataLoader, Dataset
    from torch.utils.data import RandomSampler

    def batches(name: str) -> Iterable[Any]:
        patches = Dataset(prepared, monai_changes(name, n_patches))
        sampler = RandomSampler(patches, replacement=True, num_samples=10**6)
        return DataLoader(patches, batch_size=max(1, BATCH // n_patches), sampler=sampler)

    return batches


def monai_cache(folder: Path) -> Callable[[str], Iterable[Any]]:
    from monai.data import CacheDataset

    return monai_batches(
        CacheDataset(cases(folder), monai_steps(), num_workers=1, copy_cache=False, progress=False)
    )


def monai_persistent(folder: Path) -> Callable[[str], Iterable[Any]]:
    from monai.data import PersistentDataset

    prepared = PersistentDataset(
        cases(folder), monai_steps(), cache_dir=folder / "monai", track_meta=True, weights_only=False
    )
    for index in range(len(prepared)):
        prepared[index]
    return monai_batches(prepared)


def monai_persistent_4(folder: Path) -> Callable[[str], Iterable[Any]]:
    """Four patches of every case that is loaded: faster, but batches of one patient."""
    from monai.data import PersistentDataset

    prepared = PersistentDataset(
        cases(folder), monai_steps(), cache_dir=folder / "monai", track_meta=True, weights_only=False
    )
    return monai_batches(prepared, n_patches=4)


def nnunet(folder: Path) -> Callable[[str], Iterable[Any]]:
    """nnU-Net's files, loader and transforms; its axes run the other way round: [K, J, I]."""
    import nibabel as nib
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    prepared = folder / "nnunet"
    prepared.mkdir(exist_ok=True)
    final = tuple(reversed(PATCH))
    turn = (-math.radians(30), math.radians(30))
    for paths in cases(folder):
        name = paths["image"].name.split(".")[0]
        hu, labels = (np.asarray(nib.load(paths[key]).dataobj).T for key in ("image", "label"))
        image = np.clip(hu, *WINDOW).astype(np.float32)
        image = ((image - image.mean()) / image.std())[None]
        labels = np.where(labels == 4, 3, labels).astype(np.int8)[None]
        places = DefaultPreprocessor._sample_foreground_locations(
            labels, list(range(1, N_CLASSES)), verbose=False
        )
        blocks, chunks = comp_blosc2_params(image.shape, final, image.itemsize)
        seg_blocks, seg_chunks = comp_blosc2_params(labels.shape, final, labels.itemsize)
        nnUNetDatasetBlosc2.save_case(
            image,
            labels,
            {"class_locations": places},
            str(prepared / name),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=seg_chunks,
            blocks_seg=seg_blocks,
        )
    manager = LabelManager({"background": 0, "pancreas": 1, "spleen": 2, "kidney": 3}, None)
    larger = tuple(int(side) for side in get_patch_size(final, turn, turn, turn, (0.85, 1.25)))
    flat = tuple(int(side) for side in get_patch_size(final[1:], (-0.26, 0.26), (0, 0), (0, 0), (0.85, 1.25)))
    changes = {
        "light": ((final[0], *flat), nnunet_light(final)),
        "full": (larger, nnUNetTrainer.get_training_transforms(final, turn, None, (0, 1, 2), False)),
    }

    def batches(name: str) -> Iterable[Any]:
        size, transforms = changes[name]
        dataset = nnUNetDatasetBlosc2(str(prepared))
        return nnUNetDataLoader(dataset, BATCH, size, final, manager, 0.33, transforms=transforms)

    return batches


def nnunet_light(final: tuple[int, ...]) -> Any:
    """In plane as nnU-Net does it for thick slices, and noise; labels by nearest neighbour."""
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

    turn = (-math.radians(15), math.radians(15))
    spatial = SpatialTransform(
        final[1:], 0, False, p_rotation=0.5, rotation=turn, p_scaling=0, mode_seg="nearest",
        border_mode_seg="constant", padding_value_seg=-1,
    )  # fmt: skip
    noise = GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True)
    return ComposeTransforms(
        [
            Convert3DTo2DTransform(),
            spatial,
            Convert2DTo3DTransform(),
            RandomTransform(noise, apply_probability=0.5),
            RemoveLabelTansform(-1, 0),
        ]
    )


LOADERS: dict[str, Loader] = {
    "ct_attn": ct_attn,
    "MONAI CacheDataset": monai_cache,
    "MONAI PersistentDataset": monai_persistent,
    "MONAI PersistentDataset, 4 patches per load": monai_persistent_4,
    "nnU-Net": nnunet,
}


def memory_mib(field: str) -> float:
    """``VmRSS`` or its peak ``VmHWM`` since the last :func:`forget_peak`, mapped files included."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field}: this needs Linux")


def forget_peak() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def patches_in(batch: Any) -> int:
    return len(batch["data"] if "data" in batch else batch["image"])


def warm_up(name: str) -> None:
    """Import what the loader needs, so that memory counts what it holds and not libraries."""
    if name == "nnU-Net":
        importlib.import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    else:
        importlib.import_module("ct_attn.training.patches")  # and MONAI
    torch.nn.functional.grid_sample(torch.rand(1, 2, 8, 8), torch.zeros(1, 8, 8, 2), align_corners=False)


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    say, sys.stdout = sys.stdout, sys.stderr  # libraries print
    warm_up(name)
    before_mib = memory_mib("VmRSS")
    started = time.perf_counter()
    batches = LOADERS[name](folder)
    prepared = {"seconds": time.perf_counter() - started, "peak_mib": memory_mib("VmHWM") - before_mib}
    print(json.dumps(prepared), file=say, flush=True)
    running = {key: iter(batches(key)) for key in SETS}
    for line in sys.stdin:
        key, limit_s = line.split()
        forget_peak()
        started, drawn, seconds = time.perf_counter(), 0, 0.0
        while seconds < float(limit_s):
            drawn += patches_in(next(running[key]))
            seconds = time.perf_counter() - started
        answer = {"seconds_per_patch": seconds / drawn, "peak_mib": memory_mib("VmHWM") - before_mib}
        print(json.dumps(answer), file=say, flush=True)


if __name__ == "__main__":
    main()
