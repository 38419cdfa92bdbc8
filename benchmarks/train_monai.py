"""A plain MONAI training, as MONAI's tutorials have it: one side of ``benchmarks/training.py``.

    python benchmarks/train_monai.py train MANIFEST -o RUN --steps 300 --seed 0
    python benchmarks/train_monai.py predict MANIFEST -m RUN -o MASKS

Needs torch and MONAI alone. Fold 0 of the manifest's training cases is for validation.
"""

from __future__ import annotations

import argparse
import json
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader, Dataset, decollate_batch
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.metrics import DiceMetric
from monai.networks.nets import AttentionUnet
from monai.networks.utils import one_hot
from monai.transforms import (
    AsDiscreted,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    MapLabelValued,
    Orientationd,
    RandCropByPosNegLabeld,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SaveImaged,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
    Transform,
)
from monai.utils import set_determinism

#: As in pipelines/phantom/fifteen_minutes.yaml.
SPACING_MM = (3.0, 3.0, 3.0)
PATCH = (96, 96, 64)
N_CLASSES = 4
#: Patches of a step: of two scans, one crop each.
SCANS, CROPS = 2, 1
LEARNING_RATE = 1e-3
WEIGHTS = "weights.pt"


def cases(manifest: Path) -> dict[str, list[dict[str, str]]]:
    """Of "training", "validation" and "test": the files of every case."""
    content = json.loads(manifest.read_text(encoding="utf-8"))

    def files(entries: list[dict[str, Any]]) -> list[dict[str, str]]:
        return [{key: str(manifest.parent / case[key]) for key in ("image", "label")} for case in entries]

    return {
        "training": files([case for case in content["training"] if case["fold"] != 0]),
        "validation": files([case for case in content["training"] if case["fold"] == 0]),
        "test": files(content["test"]),
    }


def reading(keys: tuple[str, ...]) -> list[Transform]:
    modes = {"image": "bilinear", "label": "nearest"}
    both_kidneys = MapLabelValued("label", orig_labels=[3, 4], target_labels=[3, 3], allow_missing_keys=True)
    return [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        both_kidneys,
        ScaleIntensityRanged("image", a_min=-160, a_max=240, b_min=0.0, b_max=1.0, clip=True),
        CropForegroundd(keys, source_key="image"),
        Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, pixdim=SPACING_MM, mode=[modes[key] for key in keys]),
    ]


def network() -> AttentionUnet:
    return AttentionUnet(
        spatial_dims=3,
        in_channels=1,
        out_channels=N_CLASSES,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
    )


def predicted(net: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return sliding_window_inference(image, PATCH, 4, net, overlap=0.5, mode="gaussian")


def train(manifest: Path, output: Path, *, steps: int, validations: int, seed: int) -> None:
    """``steps`` steps; of ``validations`` on the way the best is kept; without any, the last."""
    set_determinism(seed)
    both = ("image", "label")
    crop = RandCropByPosNegLabeld(
        both, label_key="label", spatial_size=PATCH, pos=1, neg=1, num_samples=CROPS, image_key="image",
        image_threshold=0, allow_smaller=False,
    )  # fmt: skip
    changes = [
        SpatialPadd(both, PATCH),
        crop,
        RandScaleIntensityd("image", factors=0.1, prob=0.5),
        RandShiftIntensityd("image", offsets=0.1, prob=0.5),
    ]
    sides = cases(manifest)
    training = CacheDataset(sides["training"], Compose([*reading(both), *changes]), progress=False)
    validation = CacheDataset(sides["validation"], Compose(reading(both)), progress=False)
    batches = DataLoader(training, batch_size=SCANS, shuffle=True)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    loss_of = DiceLoss(to_onehot_y=True, softmax=True)
    best = -1.0
    net.train()
    for step, batch in enumerate(islice(chain.from_iterable(repeat(batches)), steps), start=1):
        optimizer.zero_grad()
        loss = loss_of(net(batch["image"]), batch["label"])
        loss.backward()
        optimizer.step()
        print(f"step {step}, loss {loss.item():.4f}", flush=True)
        if validations and step * validations // steps > (step - 1) * validations // steps:
            dsc = validated(net, validation)
            print(f"validation DSC {dsc:.4f}", flush=True)
            if dsc > best:
                best = dsc
                torch.save(net.state_dict(), output / WEIGHTS)
    if not validations:
        torch.save(net.state_dict(), output / WEIGHTS)


def validated(net: torch.nn.Module, cases: CacheDataset) -> float:
    """The mean DSC of the organs over whole volumes."""
    net.eval()
    metric = DiceMetric(include_background=False)
    for case in DataLoader(cases):
        classes = predicted(net, case["image"]).argmax(1, keepdim=True)
        metric(one_hot(classes, N_CLASSES), one_hot(case["label"], N_CLASSES))
    net.train()
    return float(metric.aggregate())


def predict(manifest: Path, model: Path, output: Path) -> None:
    """A mask of every test case on its own grid."""
    net = network()
    net.load_state_dict(torch.load(model / WEIGHTS, weights_only=True))
    net.eval()
    transforms = Compose(reading(("image",)))
    back = Compose(
        [
            Invertd("pred", transform=transforms, orig_keys="image", nearest_interp=False),
            AsDiscreted("pred", argmax=True),
            SaveImaged(
                "pred", output_dir=str(output), output_postfix="", separate_folder=False,
                output_dtype="uint8", resample=False, print_log=False,
            ),
        ]
    )  # fmt: skip
    scans = [{"image": case["image"]} for case in cases(manifest)["test"]]
    for case in DataLoader(Dataset(scans, transforms)):
        case["pred"] = predicted(net, case["image"])
        for one in decollate_batch(case):
            back(one)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("train", "predict"))
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--validations", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.what == "train":
        train(
            options.manifest,
            options.output,
            steps=options.steps,
            validations=options.validations,
            seed=options.seed,
        )
    else:
        predict(options.manifest, options.model, options.output)


if __name__ == "__main__":
    main()
