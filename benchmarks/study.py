"""Networks side by side on the synthetic cohort: same data, steps, seeds and recipe.

    python benchmarks/study.py -o runs/study

trains every network of ``NETWORKS`` with every seed, predicts the test cases and scores
them, all through ``ct-attn``. It can be stopped at any moment and started again: what is
done is kept, and a training goes on from its last epoch. The table is written to
``benchmarks/results/network_study.md``, all scores to the CSV beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from machine import describe

from ct_attn.network.build import build_network
from ct_attn.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CT_ATTN = Path(sys.executable).with_name("ct-attn")
ORGANS = ("pancreas", "spleen", "kidney")

#: Name in the table -> recipe under pipelines/phantom/.
NETWORKS = {
    "U-Net": "unet",
    "U-Net, widened": "unet_6m44",
    "Attention U-Net": "attention_unet",
    "Attention U-Net, open at first": "attention_unet_pass_through",
    "Attention U-Net, two gates": "attention_unet_multi",
    "Attention U-Net, two gates, open at first": "attention_unet_multi_pass_through",
    "MONAI AttentionUnet": "monai_attention_unet",
}
SEEDS = (1, 2, 3)
COHORT = (
    "--cases",
    "20",
    "--test",
    "12",
    "--seed",
    "7",
    "--pixel-mm",
    "0.8",
    "1.0",
    "--slice-mm",
    "2.5",
    "5.0",
)
#: What every recipe is cut down to, so that two cores train it within four minutes.
SCALE = (
    "preprocessing.spacing_mm=[4,4,4]", "training.patch_size=[64,64,48]", "training.batch_size=2",
    "training.epochs=8", "training.batches_per_epoch=50", "training.validate_every=4",
    "training.optimizer.learning_rate=3.0e-3", "training.optimizer.schedule=cosine",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One network with one seed, and the folder of what comes of it."""

    network: str
    seed: int
    folder: Path

    @property
    def recipe(self) -> Path:
        return ROOT / "pipelines" / "phantom" / f"{NETWORKS[self.network]}.yaml"

    @property
    def scores(self) -> Path:
        return self.folder / "evaluation" / "scores.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "study")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, which share the cores")
    arguments = parser.parse_args()
    queue = [
        Training(network=name, seed=seed, folder=arguments.output / f"{recipe}-seed{seed}")
        for seed in SEEDS
        for name, recipe in NETWORKS.items()
    ]
    manifest = make_cohort(arguments.output / "cohort")
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for training in pool.map(lambda each: carry_out(each, manifest, threads), queue):
            print(f"done  {training.folder}", flush=True)
    write_results(queue)


def make_cohort(folder: Path) -> Path:
    """Draw the cohort, unless it is there, and return its manifest."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        ct_attn("phantom", "-o", folder, *COHORT, log=folder.with_suffix(".log"))
    return manifest


def carry_out(training: Training, manifest: Path, threads: int) -> Training:
    """Train, predict and score, as far as that is not done yet."""
    if training.scores.is_file():
        return training
    training.folder.mkdir(parents=True, exist_ok=True)
    log = training.folder / "log.txt"
    changes = [word for change in (*SCALE, f"training.seed={training.seed}") for word in ("--set", change)]
    run, masks = training.folder / "run", training.folder / "masks"
    train = ("train", training.recipe, "--data", manifest, "-o", run, "--resume", *changes)
    ct_attn(*train, log=log, threads=threads)
    predict = ("predict", "-m", run / "model", "-i", manifest.parent / "imagesTs", "-o", masks, "--overwrite")
    ct_attn(*predict, log=log, threads=threads)
    evaluation = ("evaluate", "--truth", manifest, "--predicted", masks, "-o", training.folder / "evaluation")
    ct_attn(*evaluation, log=log, threads=threads)
    return training


def ct_attn(*words: str | Path, log: Path, threads: int = 1) -> None:
    """Run one command, its output appended to ``log`` with the time it took."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("a", encoding="utf-8") as out:
        subprocess.run(
            [CT_ATTN, *words], stdout=out, stderr=out, check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        out.write(f"\n{words[0]}: {time.perf_counter() - start:.0f} s\n")


def write_results(queue: Sequence[Training]) -> None:
    """The table as Markdown, and the scores of every case as CSV."""
    rows = [
        {"network": training.network, "seed": training.seed, **row}
        for training in queue
        for row in csv.DictReader(training.scores.open(encoding="utf-8"))
    ]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "network_study.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (RESULTS / "network_study.md").write_text(table(rows), encoding="utf-8")
    head = ["git", "rev-parse", "--short", "HEAD"]
    record = {
        "commit": subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip(),
        "machine": describe(),
        "scale": SCALE,
        "cohort": COHORT,
    }
    (RESULTS / "network_study.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def table(rows: Sequence[dict[str, str]]) -> str:
    """Per network: parameters, then DSC and S2S per organ as mean ± spread over the seeds."""
    header = ["network", "parameters"]
    header += [f"DSC {organ}" for organ in ORGANS] + [f"S2S {organ}, mm" for organ in ORGANS] + ["missed"]
    lines = [header, ["---"] * len(header)]
    for name, recipe in NETWORKS.items():
        own = [row for row in rows if row["network"] == name]
        cells = [over_seeds(own, "dsc", organ, ".3f") for organ in ORGANS]
        cells += [over_seeds(own, "s2s_mm", organ, ".2f") for organ in ORGANS]
        missed = sum(row["state"] == "missed" for row in own)
        lines.append([name, f"{parameters(recipe):,}", *cells, f"{missed} of {len(own)}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def over_seeds(rows: Iterable[dict[str, str]], number: str, organ: str, form: str) -> str:
    """Mean over the seeds of the mean over the cases, and the standard deviation between seeds."""
    by_seed: dict[str, list[float]] = {}
    for row in rows:
        if row["organ"] == organ and row[number]:
            by_seed.setdefault(str(row["seed"]), []).append(float(row[number]))
    means = [statistics.fmean(values) for values in by_seed.values()]
    return f"{statistics.fmean(means):{form}} ± {statistics.stdev(means):{form}}"


def parameters(recipe: str) -> int:
    checked = read_recipe(ROOT / "pipelines" / "phantom" / f"{recipe}.yaml")
    network = build_network(checked.network, in_channels=1, n_classes=checked.n_classes)
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
