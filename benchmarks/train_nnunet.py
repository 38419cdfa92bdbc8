"""nnU-Net's own planner and trainer, cut to a number of steps: one side of ``benchmarks/training.py``.

    peers/bin/python benchmarks/train_nnunet.py prepare MANIFEST -o FOLDER
    peers/bin/python benchmarks/train_nnunet.py train MANIFEST -o FOLDER --steps 200 --seed 0
    peers/bin/python benchmarks/train_nnunet.py predict MANIFEST -o FOLDER --seed 0 --masks MASKS

Needs nnU-Net (benchmarks/requirements.txt). FOLDER holds what nnU-Net calls raw,
preprocessed and results. Fold 0 of the manifest's training cases is for validation.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

DATASET = "Dataset001_phantom"
CONFIGURATION = "3d_fullres"
#: For the planner, instead of 8: with patches for a GPU two cores get some 30 steps done in 15 minutes.
MEMORY_TARGET_GB = 1.0
#: Instead of 1000; the learning rate falls from one to the next. A step of validation follows each.
EPOCHS = 10
LABELS = {"background": 0, "pancreas": 1, "spleen": 2, "kidney": 3}
RIGHT_KIDNEY = 4
PROCESSES = 2


def name_folders(folder: Path) -> None:
    """nnU-Net finds its folders by environment variables, which it reads when it is imported."""
    for variable, name in (
        ("nnUNet_raw", "raw"),
        ("nnUNet_preprocessed", "preprocessed"),
        ("nnUNet_results", "results"),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder / name)
    os.environ.setdefault("nnUNet_n_proc_DA", str(PROCESSES))
    os.environ.setdefault("nnUNet_def_n_proc", str(PROCESSES))


def prepare(manifest: Path, folder: Path) -> None:
    """Bring the training cases into nnU-Net's layout, plan, preprocess, and write the split."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    cases = json.loads(manifest.read_text(encoding="utf-8"))["training"]
    raw, preprocessed = folder / "raw" / DATASET, folder / "preprocessed" / DATASET
    shutil.rmtree(raw, ignore_errors=True)
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for case in cases:
        image, label = (manifest.parent / case[key] for key in ("image", "label"))
        (raw / "imagesTr" / f"{case['case_id']}_0000.nii.gz").symlink_to(image.resolve())
        merge_kidneys(label, raw / "labelsTr" / f"{case['case_id']}.nii.gz")
    about = {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    api.extract_fingerprints([1], num_processes=PROCESSES, check_dataset_integrity=True)
    plans = api.plan_experiments(
        [1], gpu_memory_target_in_gb=MEMORY_TARGET_GB, overwrite_plans_name="nnUNetPlans"
    )
    api.preprocess([1], plans, configurations=(CONFIGURATION,), num_processes=(PROCESSES,))
    split = {
        "train": [case["case_id"] for case in cases if case["fold"] != 0],
        "val": [case["case_id"] for case in cases if case["fold"] == 0],
    }
    (preprocessed / "splits_final.json").write_text(json.dumps([split]), encoding="utf-8")


def merge_kidneys(source: Path, target: Path) -> None:
    label = nib.load(source)
    codes = np.asarray(label.dataobj).astype(np.uint8)
    codes[codes == RIGHT_KIDNEY] = LABELS["kidney"]
    nib.save(nib.Nifti1Image(codes, label.affine), target)


def make_trainer(folder: Path, *, steps: int, seed: int) -> Any:
    """nnU-Net's trainer, its epochs cut so that its schedule ends with ``steps``, a multiple of EPOCHS."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class ShortTrainer(nnUNetTrainer):
        # nnU-Net reads the names of these arguments.
        def __init__(
            self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = EPOCHS
            self.num_iterations_per_epoch = steps // EPOCHS
            self.num_val_iterations_per_epoch = 1

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 # what nnU-Net draws from
    torch.manual_seed(seed)
    torch.set_num_threads(os.cpu_count() or 1)  # as nnUNetv2_train does
    preprocessed = folder / "preprocessed" / DATASET
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    plans["continue_training"] = False
    about = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    # Signature as in nnunetv2.run.run_training.get_trainer_from_args.
    return ShortTrainer(
        plans=plans, configuration=CONFIGURATION, fold=0, dataset_json=about, device=torch.device("cpu")
    )


def predict(manifest: Path, folder: Path, seed: int, masks: Path) -> None:
    """A mask of every test case on its own grid; no mirroring at test time."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer = make_trainer(folder, steps=EPOCHS, seed=seed)
    trainer.initialize()
    trainer.load_checkpoint(str(checkpoint(folder, seed)))
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager,
        [trainer.network.state_dict()], trainer.dataset_json,
        "nnUNetTrainer", trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    cases = json.loads(manifest.read_text(encoding="utf-8"))["test"]
    masks.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(
        [[str(manifest.parent / case["image"])] for case in cases],
        [str(masks / case["case_id"]) for case in cases],
    )


def checkpoint(folder: Path, seed: int) -> Path:
    return folder / f"seed{seed}.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("prepare", "train", "predict"))
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--masks", type=Path)
    options = parser.parse_args()
    folder = options.output.resolve()
    name_folders(folder)
    if options.what == "prepare":
        prepare(options.manifest, folder)
    elif options.what == "train":
        trainer = make_trainer(folder, steps=options.steps, seed=options.seed)
        trainer.run_training()
        shutil.copyfile(
            Path(trainer.output_folder) / "checkpoint_final.pth", checkpoint(folder, options.seed)
        )
    else:
        predict(options.manifest, folder, options.seed, options.masks)


if __name__ == "__main__":
    main()
