"""The sides of ``benchmarks/inference.py``, each run in a process of its own: a scan in, a mask out.

    python benchmarks/inference_tools.py TOOL FOLDER

prints one line of JSON: seconds by stage, from the process's start, and its peak memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

# What importing takes is part of a cold start: the clock starts with the process.
STARTED = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - int(
    Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
) / os.sysconf("SC_CLK_TCK"))  # fmt: skip

PATCH, SPACING_MM, WINDOW_HU, N_CLASSES = (160, 160, 96), (2.0, 2.0, 2.0), (-160.0, 240.0), 5


class Clock:
    """Seconds by stage since the process started."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = STARTED
        self.window_voxels = 0

    def lap(self, stage: str) -> None:
        now = time.time()
        self.seconds[stage] = self.seconds.get(stage, 0) + now - self.last
        self.last = now


def monai_chain(folder: Path, clock: Clock, *, same_weights: bool, working_grid: bool = False) -> None:
    """The usual chain of MONAI's transforms; ``working_grid``: resampled to the grid that ours takes."""
    import torch
    from monai.data import MetaTensor, decollate_batch
    from monai.inferers import sliding_window_inference
    from monai.networks.nets import AttentionUnet
    from monai.transforms import (
        AsDiscreted,
        Compose,
        EnsureChannelFirstd,
        Invertd,
        LoadImaged,
        Orientationd,
        ResampleToMatchd,
        SaveImaged,
        ScaleIntensityRanged,
        Spacingd,
    )

    if same_weights:
        from ct_attn.checkpoint import load_checkpoint

        network = load_checkpoint(folder / "model").network()
    else:
        network = AttentionUnet(3, 1, N_CLASSES, (16, 32, 64, 128, 256), (2, 2, 2, 2)).eval()
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    resample = [Spacingd("image", SPACING_MM, mode="bilinear")]
    if working_grid:
        from ct_attn.preprocessing import PreprocessingConfig
        from ct_attn.preprocessing import working_grid as grid_of
        from ct_attn.scan_io.scan import read_scan

        grid = grid_of(read_scan(folder / "scan.nii.gz").grid, PreprocessingConfig())
        resample = [
            ResampleToMatchd(
                "image", key_dst="dst", mode="bilinear", padding_mode="border", align_corners=False
            )
        ]
    before = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=labels),
        ]
    )
    clock.lap("imports and weights")
    loaded = before({"image": str(folder / "scan.nii.gz")})
    clock.lap("reading")
    if working_grid:
        loaded["dst"] = MetaTensor(torch.zeros(1, *grid.shape), affine=torch.tensor(grid.affine))
    prepare = Compose([*resample, ScaleIntensityRanged("image", *WINDOW_HU, b_min=0.0, b_max=1.0, clip=True)])
    case = prepare(loaded)
    clock.lap("resampling")
    with torch.inference_mode():
        logits = sliding_window_inference(
            case["image"][None], PATCH, 1, network, overlap=0.5, mode="gaussian"
        )
        clock.lap("network")
        probabilities = torch.softmax(logits, dim=1)
    del logits
    case["pred"] = decollate_batch(probabilities)[0]
    transforms = Compose([*before.transforms, *prepare.transforms])
    if working_grid:
        transforms = prepare
    back = Invertd("pred", transforms, orig_keys="image", nearest_interp=False, to_tensor=True)
    case = back(case)
    clock.lap("inverting")
    case = AsDiscreted("pred", argmax=True)(case)
    clock.lap("argmax")
    name = "monai" if same_weights else "monai_attention_unet"
    save = SaveImaged(
        "pred", output_dir=folder, output_postfix=name + ("_grid" if working_grid else ""),
        output_dtype="uint8", separate_folder=False, print_log=False,
    )  # fmt: skip
    save(case)
    clock.lap("saving")


def nnunet(folder: Path, clock: Clock) -> None:
    """nnU-Net's predictor, step 0.5, no mirroring; a 3d_fullres plan with our patch, spacing and widths."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = str(folder)
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(nnunet_plans())
    configuration = plans.get_configuration("3d_fullres")
    network = get_network_from_plans(
        configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import, 1, N_CLASSES, deep_supervision=False,
    )  # fmt: skip
    names = ("background", "pancreas", "spleen", "left_kidney", "right_kidney")
    about = {
        "channel_names": {"0": "CT"},
        "labels": {name: code for code, name in enumerate(names)},
        "file_ending": ".nii.gz",
    }
    torch.set_num_threads(os.cpu_count() or 1)
    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], about, "nnUNetTrainer", None
    )
    clock.lap("imports and weights")
    predictor.predict_from_files_sequential([[str(folder / "scan.nii.gz")]], [str(folder / "nnunet")])
    clock.lap("reading to saving")


def nnunet_plans() -> dict:
    """What nnU-Net's planner writes, for our spacing, patch and widths (finest axis last reversed)."""
    stages = 5
    resampling = "resample_data_or_seg_to_shape"
    image = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    logits = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [16, 32, 64, 128, 256],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    fullres = {
        "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 1,
        "patch_size": list(reversed(PATCH)), "median_image_size_in_voxels": [200, 205, 205],
        "spacing": list(SPACING_MM), "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False], "resampling_fn_data": resampling, "resampling_fn_seg": resampling,
        "resampling_fn_data_kwargs": image, "resampling_fn_seg_kwargs": {**logits, "is_seg": True},
        "resampling_fn_probabilities": resampling, "resampling_fn_probabilities_kwargs": logits,
        "architecture": architecture, "batch_dice": False,
    }  # fmt: skip
    intensities = {"mean": 60.0, "std": 90.0, "percentile_00_5": -160.0, "percentile_99_5": 240.0}
    return {
        "dataset_name": "x", "plans_name": "x", "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": list(SPACING_MM),
        "original_median_shape_after_transp": [200, 512, 512],
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {**intensities, "min": -1024, "max": 2000}},
        "configurations": {"3d_fullres": fullres},
    }  # fmt: skip


def ours(
    folder: Path, clock: Clock, *, name: str, model: str = "model", cases: int = 1, **options: object
) -> None:
    """What ``ct-attn predict`` does, for one scan or for several with one process."""
    from ct_attn.inference.options import InferenceOptions
    from ct_attn.inference.predictor import Predictor
    from ct_attn.scan_io import nifti
    from ct_attn.scan_io.scan import read_scan

    clock.lap("imports")
    predictor = Predictor.load(folder / model, InferenceOptions(**options))  # type: ignore[arg-type] # fields by name
    clock.lap("loading the model")
    scan = folder / "scan.nii.gz"
    for case in range(cases):
        if case == 1:  # what comes now is warm
            clock.seconds = {}
        volume = read_scan(scan)
        frame = nifti.frame_of(scan, volume.grid)
        clock.lap("reading")
        prediction = predictor.run(volume)
        clock.window_voxels = predictor.computed_voxels
        for stage, seconds in prediction.seconds.items():
            clock.seconds[stage] = clock.seconds.get(stage, 0) + seconds
        clock.last = time.time()
        nifti.write_mask(prediction.mask, folder / f"{name}.nii.gz", scheme=predictor.scheme, frame=frame)
        clock.lap("saving")
    if cases > 1:
        clock.seconds = {stage: seconds / (cases - 1) for stage, seconds in clock.seconds.items()}


def as_monai(folder: Path, clock: Clock) -> None:
    """Ours with MONAI's windows, and with probabilities restored where we restore logits."""
    from scipy.special import softmax

    from ct_attn.inference.options import InferenceOptions
    from ct_attn.inference.predictor import Predictor
    from ct_attn.inference.restore import Restorer
    from ct_attn.preprocessing import prepare
    from ct_attn.scan_io import nifti
    from ct_attn.scan_io.scan import read_scan

    options = InferenceOptions(precision="fp32", windows="trained", body_mask=False)
    predictor = Predictor.load(folder / "model", options)
    scan = folder / "scan.nii.gz"
    volume = read_scan(scan)
    prepared = prepare(volume, predictor.preprocessing)
    restorer = Restorer(prepared.grid, volume.grid, n_values=0)
    restorer.add(0, softmax(predictor.logits(prepared), axis=0))
    frame = nifti.frame_of(scan, volume.grid)
    nifti.write_mask(restorer.mask(), folder / "as_monai.nii.gz", scheme=predictor.scheme, frame=frame)
    clock.lap("all")


TOOLS = {
    "monai": lambda folder, clock: monai_chain(folder, clock, same_weights=True),
    "monai_grid": lambda folder, clock: monai_chain(folder, clock, same_weights=True, working_grid=True),
    "monai_attention_unet": lambda folder, clock: monai_chain(folder, clock, same_weights=False),
    "nnunet": nnunet,
    "default": lambda folder, clock: ours(folder, clock, name="default"),
    "fp32": lambda folder, clock: ours(folder, clock, name="fp32", precision="fp32"),
    "fast": lambda folder, clock: ours(folder, clock, name="fast", fast=True),
    "torch": lambda folder, clock: ours(folder, clock, name="torch", backend="torch"),
    "trained": lambda folder, clock: ours(
        folder, clock, name="trained", precision="fp32", windows="trained", body_mask=False
    ),
    "as_monai": as_monai,
    "slices": lambda folder, clock: ours(folder, clock, name="slices", model="model_slices"),
    "folder": lambda folder, clock: ours(folder, clock, name="folder", cases=10),
}


def main() -> None:
    tool, folder = sys.argv[1], Path(sys.argv[2])
    clock = Clock()
    TOOLS[tool](folder, clock)
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps({"seconds": clock.seconds, "peak_bytes": peak, "window_voxels": clock.window_voxels}))


if __name__ == "__main__":
    main()
