"""Networks side by side on one patch: parameters, multiply-adds, time and peak memory.

    python benchmarks/networks.py

Each round runs every network once, one after the other, so that all share what else
the machine does; ratios are medians over the rounds. Memory is the growth of a fresh
process (on a GPU, of what torch holds). The table goes to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ct_attn.device import channels_last, choose_device, choose_precision
from ct_attn.losses import LossConfig, SegmentationLoss
from ct_attn.network.attention_gate import AdditiveAttention
from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import AnyNetworkConfig, build_network
from ct_attn.network.monai_attention_unet import MonaiAttentionUNetConfig
from ct_attn.network.segmenter import Segmenter
from ct_attn.network.unet import UNetConfig

RESULTS = Path(__file__).parent / "results"
N_CLASSES = 4
NETWORKS: dict[str, AnyNetworkConfig] = {
    "U-Net": UNetConfig(),
    "Attention U-Net": AttentionUNetConfig(),
    "Attention U-Net, as the authors' code runs it": AttentionUNetConfig(),
    "Attention U-Net, two gates": AttentionUNetConfig(gates_per_skip=2),
    "Attention U-Net, checkpointing": AttentionUNetConfig(checkpointing=True),
    "MONAI AttentionUnet": MonaiAttentionUNetConfig(),
}
AUTHORS = "Attention U-Net, as the authors' code runs it"


class AuthorsOrder(nn.Module):
    """A gate of ours run step by step as the released code does.

    All is resampled, whether its size changes or not, and alpha is copied to every
    channel before it is multiplied in.
    """

    def __init__(self, gate: AdditiveAttention) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        gate = self.gate
        theta = gate.theta(skip)
        phi = functional.interpolate(gate.phi(gating), size=theta.shape[2:], mode="trilinear")
        alpha = torch.sigmoid(gate.psi(functional.relu(theta + phi, inplace=True)))
        alpha = functional.interpolate(alpha, size=skip.shape[2:], mode="trilinear")
        attended = gate.transform(alpha.expand_as(skip) * skip)
        return gate.combine(attended)


def make(name: str, device: torch.device) -> Segmenter:
    torch.manual_seed(0)
    network = build_network(NETWORKS[name], in_channels=1, n_classes=N_CLASSES)
    if name == AUTHORS:
        network.gate = {  # type: ignore[method-assign] # only its forward is measured
            level: AuthorsOrder(gate) for level, gate in zip(network.gated_levels, network.gates, strict=True)
        }.__getitem__
    return channels_last(network.to(device))


def forward(network: Segmenter, image: Tensor, dtype: torch.dtype) -> Tensor:
    network.eval()
    with torch.inference_mode(), torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
        return network(image)


def forward_backward(network: Segmenter, image: Tensor, dtype: torch.dtype) -> None:
    network.train()
    labels = torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.long, device=image.device)
    labels[:, : image.shape[2] // 2] = 1
    with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
        loss = SegmentationLoss(LossConfig())(network(image), labels)
    loss.backward()
    network.zero_grad(set_to_none=True)


PASSES: dict[str, Callable[..., Tensor | None]] = {"forward": forward, "training": forward_backward}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(160, 160, 96))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--memory-of", nargs=2, metavar=("NETWORK", "PASS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = choose_device(options.device)
    dtype = choose_precision(options.precision, device)
    image = torch.randn(options.batch, 1, *options.size, device=device)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    if options.memory_of:
        name, which = options.memory_of
        print(peak_gib(make(name, device), image, dtype, PASSES[which]))
        return
    result = {
        "machine": describe(device),
        "patch": f"{options.batch} x {'x'.join(map(str, options.size))}, {str(dtype).removeprefix('torch.')}",
        "rounds": options.rounds,
        "networks": measure(image, dtype, options.rounds),
    }
    RESULTS.mkdir(exist_ok=True)
    suffix = f"{device.type}_{'bf16' if dtype == torch.bfloat16 else 'fp32'}"
    (RESULTS / f"networks_{suffix}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    (RESULTS / f"networks_{suffix}.md").write_text(text, encoding="utf-8")
    print(text)


def measure(image: Tensor, dtype: torch.dtype, rounds: int) -> dict[str, dict[str, float]]:
    networks = {name: make(name, image.device) for name in NETWORKS}
    seconds: dict[str, dict[str, list[float]]] = {name: {which: [] for which in PASSES} for name in networks}
    for which, run in PASSES.items():
        for number in range(rounds + 1):  # the first warms up
            for name, network in networks.items():
                taken = timed(run, network, image, dtype)
                if number:
                    seconds[name][which].append(taken)
    measured = {}
    for name, network in networks.items():
        measured[name] = {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "gigamacs": multiply_adds(network, image) / 1e9,
        }
        for which in PASSES:
            own, unet = seconds[name][which], seconds["U-Net"][which]
            measured[name][f"{which}_s"] = statistics.median(own)
            ratios = [mine / theirs for mine, theirs in zip(own, unet, strict=True)]
            measured[name][f"{which}_ratio"] = statistics.median(ratios)
            measured[name][f"{which}_gib"] = in_fresh_process(name, which, image, dtype)
    return measured


def timed(run: Callable[..., object], network: Segmenter, image: Tensor, dtype: torch.dtype) -> float:
    settle(image)
    start = time.perf_counter()
    run(network, image, dtype)
    settle(image)
    return time.perf_counter() - start


def settle(image: Tensor) -> None:
    if image.device.type == "cuda":
        torch.cuda.synchronize()


def multiply_adds(network: Segmenter, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(image)
    return counter.get_total_flops() / 2


def peak_gib(network: Segmenter, image: Tensor, dtype: torch.dtype, run: Callable[..., object]) -> float:
    """How far memory grows while ``run`` does its work; weights and image are there before."""
    if image.device.type == "cuda":
        run(network, image, dtype)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(network, image, dtype)
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    small = image[..., :32, :32, :32].contiguous(memory_format=torch.channels_last_3d)
    run(network, small, dtype)  # libraries set up what they keep
    before = highest_rss_gib()
    run(network, image, dtype)
    return highest_rss_gib() - before


def highest_rss_gib() -> float:
    """Of this process since it started; getrusage would count the parent's before the fork too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def in_fresh_process(name: str, which: str, image: Tensor, dtype: torch.dtype) -> float:
    command = [
        sys.executable, __file__, "--size", *map(str, image.shape[2:]), "--batch", str(image.shape[0]),
        "--device", str(image.device), "--precision", "bf16" if dtype == torch.bfloat16 else "fp32",
        "--memory-of", name, which,
    ]  # fmt: skip
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def table(result: dict) -> str:
    header = (
        "network", "parameters", "multiply-adds, G", "forward, s", "/ U-Net", "forward + backward, s",
        "/ U-Net", "memory forward, GiB", "memory training, GiB",
    )  # fmt: skip
    lines = [
        f"{result['machine']}; patch {result['patch']}; medians of {result['rounds']} rounds.",
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for name, row in result["networks"].items():
        lines.append(
            f"| {name} | {row['parameters']:,.0f} | {row['gigamacs']:.0f} | {row['forward_s']:.3f} "
            f"| {row['forward_ratio']:.2f} | {row['training_s']:.2f} | {row['training_ratio']:.2f} "
            f"| {row['forward_gib']:.2f} | {row['training_gib']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
