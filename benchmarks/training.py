"""Trainings of equal length side by side on the synthetic cohort, each with what it gets to.

    python -m venv peers && peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/training.py -o runs/training --peers-python peers/bin/python

ct_attn's ``pipelines/phantom/fifteen_minutes.yaml``, a plain MONAI loop with MONAI's
AttentionUnet (``train_monai.py``) and nnU-Net's own planner and trainer
(``train_nnunet.py``) train on 24 cases (6 more are for validation); the masks of 10 test cases
are scored by ``ct-attn evaluate``. Two seeds, one command at a time, on all cores.

So that what else a machine does takes nothing from anyone, every trainer is timed first,
which wants a machine that does nothing else (``--only calibrate`` does no more). From that
follows the number of steps that fill the time, startup and validation counted; a training
then makes that many however long they take. It can be stopped at any moment and started
again: trainings and scorings that are done are kept, a training that was cut off begins
anew. ``--only report`` writes the tables of what is done to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import describe
from timed_commands import Words, alone_in, forget_others, once, seconds_per_step, steps_in

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HERE = ROOT / "benchmarks"
RECIPE = ROOT / "pipelines" / "phantom" / "fifteen_minutes.yaml"
CT_ATTN = Path(sys.executable).with_name("ct-attn")
ORGANS = ("pancreas", "spleen", "kidney")
#: 30 training cases in 5 folds, of which the first is for validation.
COHORT = (
    "--cases", "30", "--folds", "5", "--test", "10", "--seed", "12",
    "--pixel-mm", "1.4", "1.8", "--slice-mm", "2.0", "3.0",
)  # fmt: skip
SEEDS = (0, 1)
#: Steps come in tens, for ct_attn and nnU-Net have as many epochs. All keep the last weights, so that
#: nobody's time goes into choosing: ct_attn validates once, at the end, which it cannot be told not to.
EPOCHS = 10
#: Enough that patches drawn ahead, while a trainer starts, do not make the steps look cheaper than they are.
CALIBRATED_WITH = (20, 80)
PEER_LABELS = ("--predicted-labels", "pancreas=1,spleen=2,kidney=3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """How one side is prepared, trained and asked for masks, and in what its masks are coded."""

    prepare: Callable[[Path, Path], Words]
    train: Callable[[Path, Path, int, int], Words]
    predict: Callable[[Path, Path, Path, int], Words]
    labels: tuple[str, ...] = ()


def trainers(output: Path, peers_python: str | None) -> dict[str, Trainer]:
    """By name; nnU-Net is left out where no interpreter has it."""
    monai = [sys.executable, HERE / "train_monai.py"]
    both = {
        "ct_attn": Trainer(
            # Two steps bring all cases into the cache beside the manifest.
            prepare=lambda manifest, run: ct_attn_training(manifest, run, 2, 0, epochs=2),
            train=ct_attn_training,
            predict=lambda manifest, run, masks, seed: [
                CT_ATTN, "predict", "-m", run / "model", "-i", manifest.parent / "imagesTs", "-o", masks,
            ],
        ),
        "MONAI AttentionUnet": Trainer(
            prepare=lambda manifest, run: ["true"],  # reads the scans in every run, as CacheDataset does
            train=lambda manifest, run, steps, seed: [
                *monai, "train", manifest, "-o", run, "--steps", str(steps),
                "--seed", str(seed),
            ],
            predict=lambda manifest, run, masks, seed: [*monai, "predict", manifest, "-m", run, "-o", masks],
            labels=PEER_LABELS,
        ),
    }  # fmt: skip
    if peers_python is None:
        return both
    nnunet: Words = [peers_python, HERE / "train_nnunet.py"]
    shared = ["-o", output / "nnunet"]
    return both | {
        "nnU-Net": Trainer(
            prepare=lambda manifest, run: [*nnunet, "prepare", manifest, *shared],
            train=lambda manifest, run, steps, seed: [
                *nnunet, "train", manifest, *shared, "--steps", str(steps), "--seed", str(seed),
            ],
            predict=lambda manifest, run, masks, seed: [
                *nnunet, "predict", manifest, *shared, "--seed", str(seed), "--masks", masks,
            ],
            labels=PEER_LABELS,
        )
    }  # fmt: skip


def ct_attn_training(manifest: Path, run: Path, steps: int, seed: int, *, epochs: int = EPOCHS) -> Words:
    changes = {
        "epochs": epochs,
        "validate_every": epochs,
        "batches_per_epoch": steps // epochs,
        "seed": seed,
    }
    words: Words = [CT_ATTN, "train", RECIPE, "--data", manifest, "-o", run]
    return words + [word for name, value in changes.items() for word in ("--set", f"training.{name}={value}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "training")
    parser.add_argument("--minutes", type=float, default=15.0, help="of each training, on an idle machine")
    parser.add_argument("--peers-python", help="interpreter with nnU-Net (benchmarks/requirements.txt)")
    parser.add_argument("--only", choices=("prepare", "calibrate", "report"), help="this, and no more")
    parser.add_argument("--note", default="", help="what else the machine did, for the record")
    options = parser.parse_args()
    output = options.output.resolve()
    manifest = output / "cohort" / "manifest.json"
    sides = trainers(output, options.peers_python)
    if options.only != "report":
        with alone_in(output):
            prepare(sides, manifest, output)
            if options.only != "prepare":
                timings = {name: calibrated(name, side, manifest, output) for name, side in sides.items()}
            if options.only is None:
                for seed in SEEDS:
                    for name, side in sides.items():
                        steps = steps_in(60 * options.minutes, *timings[name], epochs=EPOCHS)
                        carry_out(name, side, manifest, folder_of(output, name, seed), steps, seed)
                        write_results(sides, output, options)
    write_results(sides, output, options)


def folder_of(output: Path, name: str, seed: int) -> Path:
    return output / f"{name.replace(' ', '_')}-seed{seed}"


def prepare(sides: dict[str, Trainer], manifest: Path, output: Path) -> None:
    """The cohort, and what a trainer makes of it once; not part of a training's time."""
    once("cohort", [CT_ATTN, "phantom", "-o", manifest.parent, *COHORT], manifest.parent, output)
    for name, side in sides.items():
        scratch = output / "prepared" / name.replace(" ", "_")
        once(f"prepare_{name.replace(' ', '_')}", side.prepare(manifest, scratch), scratch, output)


def calibrated(name: str, side: Trainer, manifest: Path, output: Path) -> tuple[float, float]:
    """Seconds per step and beside the steps, from a shorter and a longer training."""
    seconds = {}
    for steps in CALIBRATED_WITH:
        folder = output / "calibration" / f"{name.replace(' ', '_')}-{steps}"
        words = side.train(manifest, folder, steps, 0)
        seconds[steps] = once(f"calibrate_{name.replace(' ', '_')}-{steps}", words, folder, output)["wall_s"]
    return seconds_per_step(seconds)


def carry_out(name: str, side: Trainer, manifest: Path, folder: Path, steps: int, seed: int) -> None:
    """Train, predict and score, as far as that is not done yet."""
    forget_others(folder, {"steps": steps})
    run, masks, evaluation = folder / "run", folder / "masks", folder / "evaluation"
    print(f"{time.strftime('%H:%M:%S')}  {name}, seed {seed}: {steps} steps", flush=True)
    done = once("trained", side.train(manifest, run, steps, seed), run, folder, steps=steps)
    print(f"{time.strftime('%H:%M:%S')}  trained in {done['wall_s']:.0f} s", flush=True)
    once("predicted", side.predict(manifest, run, masks, seed), masks, folder)
    words: Words = [
        CT_ATTN,
        "evaluate",
        "--truth",
        manifest,
        "--predicted",
        masks,
        "-o",
        evaluation,
        *side.labels,
    ]
    once("scored", words, evaluation, folder)
    print(f"{time.strftime('%H:%M:%S')}  scored", flush=True)


def write_results(sides: dict[str, Trainer], output: Path, options: argparse.Namespace) -> None:
    """The table as Markdown, and as JSON every number with the scores of every case."""
    done = [
        {"trainer": name, "seed": seed, **finished(folder_of(output, name, seed))}
        for name in sides
        for seed in SEEDS
        if (folder_of(output, name, seed) / "scored.json").is_file()
    ]
    if not done:
        print("no training is scored yet")
        return
    result = {
        "machine": describe(),
        "minutes": options.minutes,
        "note": options.note,
        "cohort": " ".join(COHORT),
        "calibration": {name: read_calibration(name, output) for name in sides},
        "trainings": done,
    }
    (RESULTS / "training.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    (RESULTS / "training.md").write_text(text, encoding="utf-8")
    print(text, flush=True)


def finished(folder: Path) -> dict[str, Any]:
    """What the records and the scores in ``folder`` say."""
    scores = list(csv.DictReader((folder / "evaluation" / "scores.csv").open(encoding="utf-8")))
    kept = ("case_id", "organ", "state", "dsc", "s2s_mm")
    return {
        **json.loads((folder / "trained.json").read_text(encoding="utf-8")),
        "scores": [{key: row[key] for key in kept} for row in scores if row["organ"] in ORGANS],
    }


def read_calibration(name: str, output: Path) -> dict[str, float]:
    """Wall-clock seconds by number of steps."""
    records = {
        steps: output / f"calibrate_{name.replace(' ', '_')}-{steps}.json" for steps in CALIBRATED_WITH
    }
    return {
        str(steps): json.loads(file.read_text(encoding="utf-8"))["wall_s"] for steps, file in records.items()
    }


def table(result: dict[str, Any]) -> str:
    header = ["trainer", "seeds", "steps", "wall, min", "CPU, min"]
    header += [f"DSC {organ}" for organ in ORGANS] + [f"S2S {organ}, mm" for organ in ORGANS]
    header += [f"{organ} missed + spurious" for organ in ORGANS]
    lines = [
        f"{result['machine']}. Steps that fill {result['minutes']:g} minutes as calibrated; wall and CPU "
        "time are what the trainings then took (mean of the seeds). Test cases of the cohort "
        f"`{result['cohort']}`: mean over the cases, then over the seeds (lowest to highest seed); a missed "
        "or spurious organ has DSC 0 and no distance: the last columns count them over all seeds. "
        f"{result['note']}".rstrip(),
        "",
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
    ]
    for name in result["calibration"]:
        own = [training for training in result["trainings"] if training["trainer"] == name]
        if own:
            lines.append(f"| {' | '.join(row(name, own))} |")
    lines += ["", "Wall-clock seconds of the calibration, by steps:", ""]
    for name, seconds in result["calibration"].items():
        lines.append(f"- {name}: " + ", ".join(f"{steps}: {taken:.0f} s" for steps, taken in seconds.items()))
    return "\n".join(lines) + "\n"


def row(name: str, own: list[dict[str, Any]]) -> list[str]:
    """One trainer's line."""
    minutes = [statistics.fmean(training[key] for training in own) / 60 for key in ("wall_s", "cpu_s")]
    cells = [name, str(len(own)), f"{own[0]['steps']:.0f}", *(f"{value:.1f}" for value in minutes)]
    for number, form in (("dsc", ".3f"), ("s2s_mm", ".2f")):
        for organ in ORGANS:
            means = [mean_over_cases(training["scores"], organ, number) for training in own]
            known = [mean for mean in means if mean is not None]
            if not known:
                cells.append("none")
                continue
            spread = f" ({min(known):{form}} to {max(known):{form}})" if len(known) > 1 else ""
            cells.append(f"{statistics.fmean(known):{form}}{spread}")
    of_organ = [
        [score for training in own for score in training["scores"] if score["organ"] == organ]
        for organ in ORGANS
    ]
    return [*cells, *map(left_out, of_organ)]


def left_out(scores: list[dict[str, str]]) -> str:
    """How many of the scores have no distance: missed and spurious ones."""
    states = [score["state"] for score in scores]
    return f"{states.count('missed')} + {states.count('spurious')} of {len(states)}"


def mean_over_cases(scores: list[dict[str, str]], organ: str, number: str) -> float | None:
    values = [float(score[number]) for score in scores if score["organ"] == organ and score[number]]
    return statistics.fmean(values) if values else None


if __name__ == "__main__":
    main()
