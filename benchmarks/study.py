"""What attention buys on the synthetic cohort: a queue of trainings of equal time, and what came of them.

    python benchmarks/study.py -o runs/study

draws the cohort, times every form of network, trains all of ``study_design.QUEUE`` for
``--minutes`` each, predicts the test cases (and worse copies of them) and scores them, all
through ``ct-attn``. It can be stopped at any moment and started again: what is done is kept, and a
training that was cut off begins anew. Tables and figures of what is done so
far are written to ``benchmarks/results/study/``; ``--only results`` does no more.

So that what else a machine does takes nothing from anyone, every form is timed first, which
wants a machine that does nothing else. From that follows the number of steps that fill the
time; a training then makes that many however long they take.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from study_design import (
    ASKED,
    COHORT,
    CONDITIONS,
    EPOCHS,
    N_TEST,
    QUEUE,
    ROOT,
    SCANNER,
    SEED,
    Form,
    Training,
    key_of,
)
from study_results import write_results
from timed_commands import Words, forget_other_steps, once, seconds_per_step, steps_in

CT_ATTN = Path(sys.executable).with_name("ct-attn")
#: Enough that patches drawn ahead, while a training starts, do not make the steps look cheaper than they are.
TIMED_WITH = (20, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "study")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training, on an idle machine")
    parser.add_argument("--only", choices=("time", "results"), help="this, and no more")
    options = parser.parse_args()
    output: Path = options.output.resolve()
    if options.only != "results":
        manifest = make_cohort(output / "cohort", *COHORT)
        steps = {form.key: steps_of(form, manifest, output, options.minutes) for form in forms()}
        if options.only is None:
            for training in QUEUE:
                carry_out(training, manifest, output, steps[training.form.key])
                print(f"done  {training.name}", flush=True)
            for condition, how in CONDITIONS.items():
                ask(condition, how, output)
                print(f"asked  {condition}", flush=True)
    write_results(output, minutes=options.minutes)


def forms() -> Iterator[Form]:
    """Each once, in the order of the queue."""
    seen = set()
    for training in QUEUE:
        if training.form.key not in seen:
            seen.add(training.form.key)
            yield training.form


def make_cohort(folder: Path, *words: str) -> Path:
    """Draw a cohort, unless it is there, and return its manifest."""
    once("drawn", [CT_ATTN, "phantom", "-o", folder, *words], folder, folder.with_name(f"{folder.name}_log"))
    return folder / "manifest.json"


def fewer_cases(manifest: Path, cases: int) -> Path:
    """A manifest beside ``manifest`` with the first ``cases`` of those that are not for validation."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    validation = [case for case in content["training"] if case["fold"] == 0]
    others = [case for case in content["training"] if case["fold"] != 0]
    content["training"] = validation + others[:cases]
    reduced = manifest.with_name(f"manifest_{cases}.json")
    reduced.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return reduced


def steps_of(form: Form, manifest: Path, output: Path, minutes: float) -> int:
    """How many steps of ``form`` fill the time, startup and validation counted."""
    folder = output / "timings" / form.key
    # The first brings the cases into the cache beside the manifest.
    train = Training(form=form, seed=0)
    once("cached", words(train, manifest, folder / "cached", 10), folder / "cached", folder)
    wall_s = {}
    for steps in TIMED_WITH:
        run = folder / f"run_{steps}"
        wall_s[steps] = once(f"timed_{steps}", words(train, manifest, run, steps), run, folder)["wall_s"]
    return steps_in(60 * minutes, *seconds_per_step(wall_s), epochs=EPOCHS)


def words(training: Training, manifest: Path, run: Path, steps: int) -> Words:
    """The command that trains; ``run/../..`` holds the runs that it may start from."""
    changes = (
        *training.form.changes,
        f"training.batches_per_epoch={steps // EPOCHS}",
        f"training.seed={training.seed}",
    )
    data = fewer_cases(manifest, training.cases)
    command: Words = [CT_ATTN, "train", training.form.recipe, "--data", data, "-o", run]
    command += [word for change in changes for word in ("--set", change)]
    if training.start is not None:
        command += ["--init-from", run.parents[1] / training.start / "run" / "model"]
    return command


def carry_out(training: Training, manifest: Path, output: Path, steps: int) -> None:
    """Train, predict and score, as far as that is not done yet."""
    folder = output / "trainings" / training.name
    run = folder / "run"
    forget_other_steps(folder, steps)
    once("trained", words(training, manifest, run, steps), run, folder, steps=steps)
    score(run / "model", manifest, folder, "usual")


def ask(condition: str, how: str, output: Path) -> None:
    """Draw the test cases worse, and score what the networks that are asked make of them."""
    name = key_of(condition)
    drawn = ("--cases", "2", "--folds", "2", "--test", str(N_TEST), "--seed", str(SEED), *SCANNER)
    manifest = make_cohort(output / "worse" / name, *drawn, "--degrade", how)
    for training in ASKED:
        folder = output / "trainings" / training.name
        score(folder / "run" / "model", manifest, folder, name)


def score(model: Path, manifest: Path, folder: Path, name: str) -> None:
    masks, evaluation = folder / f"masks_{name}", folder / f"evaluation_{name}"
    predict: Words = [CT_ATTN, "predict", "-m", model, "-i", manifest.parent / "imagesTs", "-o", masks]
    once(f"predicted_{name}", predict, masks, folder)
    evaluate: Words = [CT_ATTN, "evaluate", "--truth", manifest, "--predicted", masks, "-o", evaluation]
    once(f"scored_{name}", [*evaluate, "--pictures", "0", "--viewer", "0"], evaluation, folder)


if __name__ == "__main__":
    main()
