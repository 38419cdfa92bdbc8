"""Five minutes of 2.5D training: what it gets to, and what a large scan costs it beside a 3D network.

    python benchmarks/slices.py -o runs/slices

trains ``pipelines/phantom/five_minutes_2_5d.yaml`` on 24 synthetic cases (6 more are for
validation), scores its masks of 10 test cases on their own grids, and predicts a scan of
512 x 512 x 200 voxels with it and with the 3D Attention U-Net of ``benchmarks/inference.py``, each
``--rounds`` times in turn. The number of steps follows from two short trainings, which want a machine
that does nothing else. What is done is kept: it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import inference
from machine import describe
from timed_commands import Words, once, seconds_per_step, steps_in
from training import COHORT, CT_ATTN, ORGANS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECIPE = ROOT / "pipelines" / "phantom" / "five_minutes_2_5d.yaml"
EPOCHS, TIMED_WITH = 10, (100, 300)
LABELS = {"slices": "2.5D, this training, 3 mm in plane", "default": "3D Attention U-Net, 16-256, 2 mm"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "slices")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, on an idle machine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="what else the machine did, for the record")
    options = parser.parse_args()
    output: Path = options.output.resolve()
    manifest = output / "cohort" / "manifest.json"
    once("drawn", [CT_ATTN, "phantom", "-o", manifest.parent, *COHORT], manifest.parent, output)
    once("cached", train(manifest, output / "cached", 10), output / "cached", output)
    timed = {
        steps: once(f"timed_{steps}", train(manifest, output / f"run_{steps}", steps),
                    output / f"run_{steps}", output)["wall_s"]
        for steps in TIMED_WITH
    }  # fmt: skip
    steps = steps_in(60 * options.minutes, *seconds_per_step(timed), epochs=EPOCHS)
    run, masks, evaluation = output / "run", output / "masks", output / "evaluation"
    trained = once("trained", train(manifest, run, steps), run, output, steps=steps)
    predict: Words = [
        CT_ATTN,
        "predict",
        "-m",
        run / "model",
        "-i",
        manifest.parent / "imagesTs",
        "-o",
        masks,
    ]
    once("predicted", predict, masks, output)
    once("scored", [CT_ATTN, "evaluate", "--truth", manifest, "--predicted", masks, "-o", evaluation],
         evaluation, output)  # fmt: skip
    result = {
        "machine": describe(),
        "minutes": options.minutes,
        "note": options.note,
        "cohort": " ".join(COHORT),
        "trained": trained,
        "scores": scores(evaluation / "scores.csv"),
        "rounds": options.rounds,
        "scan": large_scan(output / "scan", run / "model", options.rounds),
    }
    (RESULTS / "slices.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    (RESULTS / "slices.md").write_text(text, encoding="utf-8")
    print(text)


def train(manifest: Path, run: Path, steps: int) -> Words:
    changes = (f"training.epochs={EPOCHS}", f"training.validate_every={EPOCHS}",
               f"training.batches_per_epoch={steps // EPOCHS}")  # fmt: skip
    words: Words = [CT_ATTN, "train", RECIPE, "--data", manifest, "-o", run]
    return words + [word for change in changes for word in ("--set", change)]


def scores(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as rows:
        return [row for row in csv.DictReader(rows) if row["organ"] in ORGANS]


def large_scan(folder: Path, model: Path, rounds: int) -> dict[str, Any]:
    """Medians by stage, from a cold start; what is converted once is converted before."""
    folder.mkdir(parents=True, exist_ok=True)
    inference.make_scan(folder / "scan.nii.gz")
    inference.train(folder / "model")
    if not (folder / "model_slices").is_symlink():
        (folder / "model_slices").symlink_to(model)
    for name in LABELS:
        inference.run(name, folder, sys.executable)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in LABELS}
    for _ in range(rounds):
        for name, own in runs.items():
            own.append(inference.run(name, folder, sys.executable))
    return {name: inference.median(own) for name, own in runs.items()}


def table(result: dict[str, Any]) -> str:
    trained = result["trained"]
    lines = [
        f"{result['machine']}. {trained['steps']:.0f} steps, which fill {result['minutes']:g} minutes on the "
        f"idle machine and took {trained['wall_s'] / 60:.1f} ({trained['cpu_s'] / 60:.1f} of processors). "
        f"Cohort `{result['cohort']}`. {result['note']}".rstrip(),
        "",
        "| organ | DSC, mean of the test cases | lowest | S2S, mm | missed + spurious |",
        "|---" * 5 + "|",
    ]
    for organ in ORGANS:
        own = [row for row in result["scores"] if row["organ"] == organ]
        dsc = [float(row["dsc"]) for row in own]
        s2s_mm = [float(row["s2s_mm"]) for row in own if row["s2s_mm"]]
        distance = f"{statistics.fmean(s2s_mm):.2f}" if s2s_mm else "none"
        states = [row["state"] for row in own]
        without = f"{states.count('missed')} + {states.count('spurious')} of {len(own)}"
        cells = (organ, f"{statistics.fmean(dsc):.3f}", f"{min(dsc):.3f}", distance)
        lines.append(f"| {' | '.join(cells)} | {without} |")
    lines += [
        "",
        "A scan of 512 x 512 x 200 voxels, cold start to mask; medians of "
        f"{result['rounds']} rounds in turn.",
        "",
        "| network | total, s | peak, GB | stages, s |",
        "|---" * 4 + "|",
    ]
    for name, tool in result["scan"].items():
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in tool["seconds"].items())
        lines.append(
            f"| {LABELS[name]} | {tool['total_s']:.2f} | {tool['peak_bytes'] / 1e9:.2f} | {stages} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
