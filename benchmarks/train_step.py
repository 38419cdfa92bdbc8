"""Training steps side by side: ct_attn's own, and a plain MONAI loop with the same network.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --dsc-data COHORT/manifest.json

Ours is the recipe's module in Lightning's Trainer with what ``ct-attn train`` does beside
every step (the loss is looked at and shown), memory kept in the process included. The plain
loop is MONAI's tutorials': contiguous tensors, DiceLoss, Adam, and torch's autocast for
bf16. Both have the same network, patch and batch, which is there before: drawing patches
is what ``benchmarks/data.py`` measures. Every side runs in a process of its own; each
round asks every side once, one after the other, so that all share what else the machine
does; ratios are medians over the rounds. Memory is the growth of a process (on a GPU, of
what torch holds). On a GPU, the share of the bf16 matrix products that it can do.

With ``--dsc-data``, a manifest such as ``ct-attn phantom`` writes, both also train from
the same weights on the same patches for as many steps, and are compared on the whole
volumes of fold 0. The table goes to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from machine import describe
from monai.losses import DiceLoss
from rich.progress import Progress
from step_seconds import Clock, differences, prepared
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from ct_attn.device import choose_device, computes_bf16
from ct_attn.heap import keep_freed_memory
from ct_attn.inference.sliding_window import sliding_window_logits
from ct_attn.network.build import build_network
from ct_attn.recipe import Recipe
from ct_attn.training.cache import CachedCase
from ct_attn.training.callbacks import EpochLog
from ct_attn.training.confusion import count_voxels, predicted_labels, ratios
from ct_attn.training.faults import StopOnNonFinite
from ct_attn.training.module import SegmentationModule
from ct_attn.training.patches import PatchDataset
from ct_attn.training.show import ShowProgress

RESULTS = Path(__file__).parent / "results"
PLAIN = "plain MONAI loop, fp32"
#: Whose step, and in which precision.
SIDES = {
    PLAIN: ("monai", "fp32"),
    "plain MONAI loop, bf16": ("monai", "bf16"),
    "ct_attn, fp32": ("ct_attn", "fp32"),
    "ct_attn, bf16": ("ct_attn", "bf16"),
}
Batch = dict[str, Tensor]
#: Takes batches and gives the seconds of every step but the first.
Loop = Callable[[list[Batch]], list[float]]


def our_loop(recipe: Recipe, precision: str, device: torch.device) -> tuple[nn.Module, Loop]:
    if device.type == "cpu":
        keep_freed_memory()  # as ct_attn.train does
    module = SegmentationModule(recipe)

    def run(batches: list[Batch]) -> list[float]:
        clock = Clock()
        nowhere = Path(tempfile.gettempdir()) / "unused"
        beside = [
            StopOnNonFinite(nowhere, accumulate=1),
            ShowProgress(Progress(disable=True), EpochLog(nowhere, recipe.label_scheme.names)),
        ]
        trainer = Trainer(
            accelerator=device.type, devices=1, precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=1, logger=False, callbacks=[*beside, clock], enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type] # a list will do
        return differences(clock.done)

    return module.network, run


def plain_loop(recipe: Recipe, precision: str, device: torch.device) -> tuple[nn.Module, Loop]:
    network = build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), recipe.training.optimizer.learning_rate)
    loss_of = DiceLoss(to_onehot_y=True, softmax=True)

    def run(batches: list[Batch]) -> list[float]:
        network.train()
        done = []
        for batch in batches:
            image, label = batch["image"].to(device), batch["label"][:, None].to(device)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = loss_of(network(image), label)
            loss.backward()
            optimizer.step()
            loss.item()
            settle(device)
            done.append(time.perf_counter())
        return differences(done)

    return network, run


LOOPS = {"monai": plain_loop, "ct_attn": our_loop}


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 64))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=2, help="of every side in a round; one more is not timed"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dsc-data", type=Path, help="manifest to train on and compare DSC")
    parser.add_argument("--dsc-steps", type=int, default=150)
    parser.add_argument("--dsc-seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--only", choices=("steps", "dsc"), help="this, beside what an earlier run wrote")
    parser.add_argument("--note", default="", help="what else the machine did, for the record")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = choose_device(options.device)
    if options.side:
        serve(*options.side, options, device)
        return
    name = "cuda" if device.type == "cuda" else "_".join(["cpu", *cpu_formats()])
    file = RESULTS / f"train_step_{name}.json"
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if options.only != "dsc":
        result |= {
            "machine": describe(device),
            "note": options.note,
            "patch": f"{options.batch} x {'x'.join(map(str, options.size))}",
            "rounds": options.rounds,
            "network": "Attention U-Net",
            "steps": measure(options),
        }
        if device.type == "cuda":
            result["ceiling"] = ceiling(options, device, result["steps"])
    if options.dsc_data and options.only != "steps":
        result["dsc"] = compared(options, device)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    file.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def cpu_formats() -> list[str]:
    return [flag for flag in ("amx_bf16", "avx512_bf16") if flag in describe()] or ["fp32"]


def recipe_for(options: argparse.Namespace) -> Recipe:
    training = {"patch_size": options.size, "batch_size": options.batch}
    return Recipe.model_validate({"name": "train_step", "training": training})


def serve(whose: str, precision: str, options: argparse.Namespace, device: torch.device) -> None:
    """A side in its process: for every line with a number of steps, their seconds and the peak of memory."""
    quiet()
    torch.manual_seed(0)
    recipe = recipe_for(options)
    _, run = LOOPS[whose](recipe, precision, device)
    batch = {
        "image": torch.randn(options.batch, 1, *options.size),
        "label": torch.randint(recipe.n_classes, (options.batch, *options.size), dtype=torch.uint8),
        "known": torch.ones(options.batch, recipe.n_classes, dtype=torch.bool),
    }
    before = peak_gib(device)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = run([batch] * (int(line) + 1))
        print(json.dumps({"seconds": seconds, "gib": peak_gib(device) - before}), flush=True)


def peak_gib(device: torch.device) -> float:
    """Of this process since it started; on a GPU of what torch held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Per side: seconds of a step, how many times as fast as the plain fp32 loop, GiB."""
    with tempfile.TemporaryFile("w+") as errors:
        workers = {name: start(side, options, errors) for name, side in SIDES.items()}
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        for number in range(options.rounds + 1):  # the first warms up
            for name, worker in workers.items():
                assert worker.stdin is not None
                print(1 if number == 0 else options.steps, file=worker.stdin, flush=True)
                answer = json.loads(line_of(worker, errors))
                if number:
                    answers[name].append(answer)
        for worker in workers.values():
            worker.communicate()
    return {name: summarised(own, answers) for name, own in answers.items()}


def start(side: tuple[str, str], options: argparse.Namespace, errors: Any) -> subprocess.Popen[str]:
    command = [
        sys.executable, __file__, "--side", *side, "--size", *map(str, options.size),
        "--batch", str(options.batch), "--device", options.device,
    ]  # fmt: skip
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    while line_of(worker, errors).strip() != "ready":
        pass
    return worker


def line_of(worker: subprocess.Popen[str], errors: Any) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        errors.seek(0)
        raise RuntimeError(f"{worker.args} ended:\n{errors.read()}")
    return line


def summarised(own: list[dict[str, Any]], answers: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    seconds = [statistics.median(answer["seconds"]) for answer in own]
    result = {
        "step_s": statistics.median(seconds),
        "steps_per_s": 1 / statistics.median(seconds),
        "gib": max(answer["gib"] for answer in own),
    }
    for precision in ("fp32", "bf16"):
        plain = [statistics.median(a["seconds"]) for a in answers[f"plain MONAI loop, {precision}"]]
        ratios = [theirs / mine for mine, theirs in zip(seconds, plain, strict=True)]
        result |= {
            f"times_plain_{precision}": statistics.median(ratios),
            f"lowest_{precision}": min(ratios),
            f"highest_{precision}": max(ratios),
        }
    return result


def ceiling(
    options: argparse.Namespace, device: torch.device, steps: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """What share of the bf16 matrix products that the GPU does in the same time a step's are."""
    side = 8192
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(20):
        settle(device)
        begin = time.perf_counter()
        torch.matmul(a, b)
        settle(device)
        seconds.append(time.perf_counter() - begin)
    flops_per_s = 2 * side**3 / statistics.median(seconds)
    recipe = recipe_for(options)
    network = build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes).to(device)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(options.batch, 1, *options.size, device=device)).sum().backward()
    work = counter.get_total_flops()
    return {
        "tflops_per_s": flops_per_s / 1e12,
        "step_tflops": work / 1e12,
        "share": {name: work / row["step_s"] / flops_per_s for name, row in steps.items()},
    }


def compared(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """DSC of every organ after a short training of the plain fp32 loop, and of ours in its best precision."""
    quiet()
    best = "bf16" if computes_bf16(device) else "fp32"
    sides = {PLAIN: SIDES[PLAIN], f"ct_attn, {best}": ("ct_attn", best)}
    scores: dict[str, list[list[float]]] = {name: [] for name in sides}
    for seed in options.dsc_seeds:
        recipe = short_recipe(seed, options.dsc_steps)
        training, validation = prepared(recipe, options.dsc_data)
        patches = DataLoader(PatchDataset(training, recipe, epoch=0), batch_size=recipe.training.batch_size)
        drawn: list[Batch] = list(patches)
        for name, (whose, precision) in sides.items():
            seed_everything(seed, verbose=False)
            network, run = LOOPS[whose](recipe, precision, device)
            run(drawn)
            scores[name].append(validated(network, validation, recipe, device))
            print(f"{name}, seed {seed}: {scores[name][-1]}", file=sys.stderr, flush=True)
    means = {name: statistics.fmean(statistics.fmean(dsc) for dsc in own) for name, own in scores.items()}
    return {
        "steps": options.dsc_steps,
        "seeds": len(options.dsc_seeds),
        "cases": [len(training), len(validation)],
        "per_seed": scores,
        "mean": means,
    }


def short_recipe(seed: int, steps: int) -> Recipe:
    """The default network and loss at 4 mm on small patches, at one learning rate."""
    return Recipe.model_validate(
        {
            "name": "short",
            "preprocessing": {"spacing_mm": [4.0, 4.0, 4.0]},
            "training": {
                "seed": seed,
                "patch_size": [64, 64, 48],
                "batches_per_epoch": steps,
                "optimizer": {"learning_rate": 3e-3},
            },
        }
    )


def validated(
    network: nn.Module, cases: list[CachedCase], recipe: Recipe, device: torch.device
) -> list[float]:
    """DSC of every target, mean over ``cases``, predicted in fp32."""
    network.eval().to(device)
    scores = []
    for case in cases:
        mapped = case.open()
        logits = sliding_window_logits(
            network, mapped.image.float().to(device), patch_size=recipe.training.patch_size, overlap=0.5
        )
        labels = predicted_labels(logits[None], recipe.loss).cpu()
        counts = count_voxels(labels, mapped.label[None], torch.ones(1, recipe.n_classes, dtype=torch.bool))
        scores.append([ratios(of_target)[0] for of_target in counts.tolist()])
    return torch.tensor(scores).nanmean(0).tolist()


def quiet() -> None:
    warnings.filterwarnings("ignore", module="lightning")


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['machine']}; {result['network']}, patch {result['patch']}; medians of {result['rounds']} "
        f"rounds in turn (lowest to highest). {result['note']}".rstrip(),
        "",
    ]
    header = ["side", "steps/s", "s per step", "times plain fp32", "times plain bf16", "memory, GiB"]
    header += ["share of the ceiling"] if "ceiling" in result else []
    lines += [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, row in result["steps"].items():
        cells = [name, f"{row['steps_per_s']:.3f}", f"{row['step_s']:.2f}"]
        cells += [
            f"{row[f'times_plain_{p}']:.2f} ({row[f'lowest_{p}']:.2f} to {row[f'highest_{p}']:.2f})"
            for p in ("fp32", "bf16")
        ]
        cells.append(f"{row['gib']:.2f}")
        cells += [f"{result['ceiling']['share'][name]:.1%}"] if "ceiling" in result else []
        lines.append(f"| {' | '.join(cells)} |")
    if "ceiling" in result:
        lines += ["", f"Ceiling: {result['ceiling']['tflops_per_s']:.0f} TFLOP/s of bf16 matrix products."]
    return "\n".join([*lines, *dsc_lines(result.get("dsc"))]) + "\n"


def dsc_lines(dsc: dict[str, Any] | None) -> Iterator[str]:
    if dsc is None:
        return
    yield ""
    yield (
        f"Mean DSC on {dsc['cases'][1]} whole validation cases after {dsc['steps']} steps on the same "
        f"patches of {dsc['cases'][0]} cases at 4 mm, from the same weights; seeds: {dsc['seeds']}. "
        "Each has its own Dice loss (ours with squares in the denominator) and its own precision."
    )
    yield ""
    for name, mean in dsc["mean"].items():
        seeds = ", ".join(f"{statistics.fmean(own):.3f}" for own in dsc["per_seed"][name])
        yield f"- {name}: {mean:.3f} ({seeds})"


if __name__ == "__main__":
    main()
