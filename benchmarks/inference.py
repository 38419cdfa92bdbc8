"""A scan to a mask, the usual ways and ours: seconds by stage, memory, and how far masks agree.

    python3 -m venv peers && peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/inference.py --peers peers/bin/python

A synthetic scan of 512 x 512 x 200 voxels, and an Attention U-Net trained on that scan until it
finds its organs, in some minutes (kept in ``--folder`` for the next run). Every tool runs in a
process of its own, one after the other, ``--rounds`` times; the table holds medians. Ours has
converted the model before, as any but the first run has; that first run's time is given apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from inference_tools import PATCH, TOOLS
from machine import describe

from ct_attn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ct_attn.datasets.phantom.case import draw_case
from ct_attn.datasets.phantom.config import PhantomConfig
from ct_attn.device import channels_last, choose_precision
from ct_attn.losses import LossConfig, SegmentationLoss
from ct_attn.network.build import build_network
from ct_attn.preprocessing import PreprocessingConfig, prepare, prepare_mask
from ct_attn.recipe import Recipe
from ct_attn.scan_io import nifti
from ct_attn.training_config import TrainingConfig
from ct_attn.volume import Grid, Volume

RESULTS = Path(__file__).parent / "results"
ORGANS = ("pancreas", "spleen", "left_kidney", "right_kidney")
SCAN = PhantomConfig(
    in_plane_spacing_mm=(0.8, 0.8), slice_spacing_mm=(2.0, 2.0), field_of_view_mm=(409.6, 409.6),
    coverage_mm=(400.0, 400.0), body_scale=(1.0, 1.0), orientations=("LPS",), oblique_probability=0.0,
    padding_probability=0.0,
)  # fmt: skip
RECIPE = Recipe(
    name="benchmark",
    targets={organ: (organ,) for organ in ORGANS},
    preprocessing=PreprocessingConfig(antialias=False),  # as Spacingd samples
    training=TrainingConfig(patch_size=PATCH),
)
#: Of scans that show how time and memory grow; the patient is repeated, as no patient is as long.
SLICES = (100, 200, 400, 800)
#: Of the usual chain's 160 x 160 x 96 window, by torch's counter.
GFLOP_PER_VOXEL = 342 / (160 * 160 * 96)
LABELS = {
    "monai": "MONAI's usual chain",
    "monai_attention_unet": "the same, MONAI's AttentionUnet",
    "nnunet": "nnU-Net v2's predictor, like size",
    "default": "ours, cold start",
    "folder": "ours, each of ten",
    "fp32": "ours, fp32-exact, cold start",
    "torch": "ours, torch backend, cold start",
    "fast": "ours, --fast, cold start",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", help="The Python that has nnU-Net; without it nnU-Net is left out.")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ct_attn_inference")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tools", nargs="*", default=list(LABELS), choices=list(LABELS))
    options = parser.parse_args()
    folder: Path = options.folder
    make_scan(folder / "scan.nii.gz")
    train(folder / "model")
    result: dict = {"machine": describe(), "rounds": options.rounds, "ceiling_gflops": ceilings()}
    result["first_use_s"] = first_use(folder)
    for name in ("default", "fp32", "fast", "trained"):
        run(name, folder, sys.executable)  # compiled now
    for name in ("monai_grid", "as_monai"):
        run(name, folder, sys.executable)
    measured: dict[str, list[dict]] = {name: [] for name in options.tools}
    for _ in range(options.rounds):
        for name, runs in measured.items():
            python = options.peers if name == "nnunet" else sys.executable
            if python:
                runs.append(run(name, folder, python))
    result["tools"] = {name: median(runs) for name, runs in measured.items() if runs}
    result["dice"] = agreement(folder)
    result["network_share_of_ceiling"] = network_share(result)
    result["by_slices"] = {count: grown(folder, count) for count in SLICES}
    text = table(result)
    print(text)
    name = f"inference_{result['machine'].split(',')[0].replace('(R)', '').replace(' ', '_').lower()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")


def make_scan(path: Path) -> None:
    if not path.exists():
        case = draw_case(7, SCAN)
        nifti.write_volume(case.volume, path)
        nifti.write_mask(case.mask, path.with_name("truth.nii.gz"), scheme=RECIPE.label_scheme)


#: Steps, and of what size: patches as large as the recipe's teach what a window's edge does not tell.
STAGES = ((400, (64, 64, 48)), (120, PATCH))


def is_trained(folder: Path) -> bool:
    """Whether an earlier run left a network there that was trained as :data:`STAGES` say."""
    if not folder.is_dir():
        return False
    return load_checkpoint(folder).provenance.get("steps") == sum(count for count, _ in STAGES)


def train(folder: Path) -> None:
    """A network that finds this scan's organs, unless it is there: what is compared are ways to run it."""
    if is_trained(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    scan = folder.parent / "scan.nii.gz"
    image = prepare(nifti.read_volume(scan), RECIPE.preprocessing).image
    mask, _ = nifti.read_mask(scan.with_name("truth.nii.gz"))
    labels = prepare_mask(mask, RECIPE.preprocessing).labels
    places = [np.argwhere(labels == code) for code in range(RECIPE.n_classes)]
    network = channels_last(build_network(RECIPE.network, in_channels=1, n_classes=RECIPE.n_classes))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    sizes = [size for count, size in STAGES for _ in range(count)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(sizes))
    loss = SegmentationLoss(LossConfig(cross_entropy_weight=1.0))
    precision = choose_precision("auto", torch.device("cpu"))
    for step, size in enumerate(sizes):
        voxels = places[step % len(places)]
        middle = voxels[random.integers(len(voxels))]
        begin = [
            int(np.clip(at - side // 2 + random.integers(-16, 17), 0, max(0, length - side)))
            for at, side, length in zip(middle, size, labels.shape, strict=True)
        ]
        window = tuple(slice(first, first + side) for first, side in zip(begin, size, strict=True))
        patch = torch.from_numpy(np.ascontiguousarray(image[window]))[None, None]
        truth = torch.from_numpy(labels[window].astype(np.int64))[None]
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            error = loss(network(patch.contiguous(memory_format=torch.channels_last_3d)), truth)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            print(f"step {step + 1} of {len(sizes)}: loss {error.item():.3f}", flush=True)
    save_checkpoint(
        Checkpoint(weights=network.state_dict(), recipe=RECIPE, provenance={"steps": len(sizes)}), folder
    )


def first_use(folder: Path) -> float:
    """Seconds of a run that has nothing converted yet."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch)
        (fresh / "scan.nii.gz").symlink_to(folder / "scan.nii.gz")
        (fresh / "model").mkdir()
        (fresh / "model" / "model.safetensors").symlink_to(folder / "model" / "model.safetensors")
        return sum(run("default", fresh, sys.executable)["seconds"].values())


def grown(folder: Path, count: int) -> dict:
    """Our default on a scan of ``count`` slices: the second of two runs, as the first compiles."""
    place = folder / f"slices_{count}"
    place.mkdir(exist_ok=True)
    scan = place / "scan.nii.gz"
    if not scan.exists():
        volume = nifti.read_volume(folder / "scan.nii.gz")
        there_and_back = np.concatenate([volume.hu, volume.hu[..., ::-1]], axis=2)
        hu = np.tile(there_and_back, (1, 1, -(-count // there_and_back.shape[2])))[..., :count]
        grid = Grid(shape=hu.shape, affine=volume.grid.affine)
        nifti.write_volume(Volume(hu=hu, grid=grid), scan)
    if not (place / "model").exists():
        (place / "model").symlink_to(folder / "model")
    run("default", place, sys.executable)
    measured = run("default", place, sys.executable)
    own = 512 * 512 * count * (2 + 1)  # HU as int16 and the mask as uint8
    return {"total_s": sum(measured["seconds"].values()), "seconds": measured["seconds"],
            "peak_bytes": measured["peak_bytes"], "scan_and_mask_bytes": own}  # fmt: skip


def run(tool: str, folder: Path, python: str) -> dict:
    command = [python, str(Path(__file__).with_name("inference_tools.py")), tool, str(folder)]
    assert tool in TOOLS
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} failed:\n{done.stderr}")
    measured = json.loads(done.stdout.splitlines()[-1])
    print(tool, {stage: round(s, 2) for stage, s in measured["seconds"].items()}, flush=True)
    return measured


def agreement(folder: Path) -> dict[str, dict[str, float]]:
    """Dice between masks.

    "monai, our grid" is MONAI's chain with its windows on the grid that ours takes, "trained" is
    ours with the same windows, in fp32 and without a body mask; "as_monai" also restores
    probabilities instead of logits.
    """
    ours = ("default", "fp32", "fast", "trained", "as_monai", "truth")
    files = {name: folder / f"{name}.nii.gz" for name in ours}
    files |= {"monai": folder / "scan_monai.nii.gz", "monai, our grid": folder / "scan_monai_grid.nii.gz"}
    pairs = [
        (name, other)
        for other in ("monai, our grid", "monai", "truth")
        for name in ("fp32", "default", "fast", "monai")
        if name != other
    ]
    alike = [(name, "monai, our grid") for name in ("as_monai", "trained")]
    pairs = [("default", "fp32"), *alike, *pairs]
    return {
        f"{name} / {other}": dice(files[name], files[other])
        for name, other in pairs
        if files[name].exists() and files[other].exists()
    }


def median(runs: list[dict]) -> dict:
    stages = {stage: statistics.median(run["seconds"][stage] for run in runs) for stage in runs[0]["seconds"]}
    return {
        "seconds": stages,
        "total_s": statistics.median(sum(run["seconds"].values()) for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "window_voxels": runs[0]["window_voxels"],
    }


def ceilings() -> dict[str, float]:
    """GFLOP/s of one large 3D convolution, channels last: the fastest of ten."""
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        layer = torch.nn.Conv3d(64, 64, 3, padding=1).to(dtype).to(memory_format=torch.channels_last_3d)
        x = torch.randn(1, 64, 64, 64, 48, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
        flop = 2 * 64 * 64 * 27 * x[0, 0].numel()
        with torch.inference_mode():
            layer(x)
            taken = []
            for _ in range(10):
                started = time.perf_counter()
                layer(x)
                taken.append(time.perf_counter() - started)
        found[name] = flop / min(taken) / 1e9
    return found


def network_share(result: dict) -> dict[str, dict[str, float]]:
    """GFLOP/s of our network stages, alone and with blending, as shares of the measured ceilings."""
    shares = {}
    for name, ceiling in (("default", "bf16"), ("folder", "bf16"), ("fp32", "fp32")):
        if name in result["tools"]:
            tool = result["tools"][name]
            gflop = tool["window_voxels"] * GFLOP_PER_VOXEL
            alone = tool["seconds"]["network"]
            shares[name] = {
                what: gflop / seconds / result["ceiling_gflops"][ceiling]
                for what, seconds in (("alone", alone), ("blended", alone + tool["seconds"]["blending"]))
            }
    return shares


def dice(first: Path, second: Path) -> dict[str, float]:
    # One tool writes its mask in the scan's orientation, the other in RAS.
    a, b = (
        np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj).squeeze() for path in (first, second)
    )
    return {
        organ: float(2 * ((a == code) & (b == code)).sum() / max(1, (a == code).sum() + (b == code).sum()))
        for code, organ in enumerate(ORGANS, start=1)
    }


def table(result: dict) -> str:
    usual = result["tools"]["monai"]
    ceiling = ", ".join(f"{name} {value:.0f}" for name, value in result["ceiling_gflops"].items())
    lines = [
        f"{result['machine']}; medians of {result['rounds']} rounds. "
        f"3D convolution at most, GFLOP/s: {ceiling}. First use of a model: {result['first_use_s']:.1f} s.",
        "",
        "| | total, s | usual / it | peak, GB | / usual | stages, s |",
        "|---|---|---|---|---|---|",
    ]
    for name, tool in result["tools"].items():
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in tool["seconds"].items())
        lines.append(
            f"| {LABELS[name]} | {tool['total_s']:.2f} | {usual['total_s'] / tool['total_s']:.1f} "
            f"| {tool['peak_bytes'] / 1e9:.2f} | {tool['peak_bytes'] / usual['peak_bytes']:.2f} | {stages} |"
        )
    lines += ["", "| Dice between masks | " + " | ".join(ORGANS) + " |", "|---" * 5 + "|"]
    for pair, values in result["dice"].items():
        lines.append(f"| {pair} | " + " | ".join(f"{values[organ]:.4f}" for organ in ORGANS) + " |")
    shares = ", ".join(
        f"{name} {share['alone']:.0%} ({share['blended']:.0%} with blending)"
        for name, share in result["network_share_of_ceiling"].items()
    )
    lines += ["", f"Network stage, of the ceiling: {shares}.", ""]
    lines += [
        "| slices | default, s | s per 100 slices | peak, GB | less scan and mask, GB |",
        "|---" * 5 + "|",
    ]
    for count, one in result["by_slices"].items():
        rest = (one["peak_bytes"] - one["scan_and_mask_bytes"]) / 1e9
        lines.append(
            f"| {count} | {one['total_s']:.2f} | {100 * one['total_s'] / count:.2f} "
            f"| {one['peak_bytes'] / 1e9:.2f} | {rest:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
