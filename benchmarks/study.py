"""What attention buys on the synthetic cohort: a queue of trainings of equal time, and what came of them.

    python benchmarks/study.py -o runs/study

draws the cohort, times every form of network, trains all of ``study_design.QUEUE`` for
``--minutes`` each, predicts the test cases (and worse copies of them) and scores them, all
through ``ct-attn``. It can be stopped at any moment and started again: what is done is kept,
and a training that was cut off, or is of another recipe now, begins anew. One that fails is named and
left out; the next start tries it again. Tables and figures of what is done so far go to
``benchmarks/results/study/`` and into ``docs/study.md``; ``--only results`` does no more.

So that what else a machine does takes nothing from anyone, every form is timed first, which
wants a machine that does nothing else. From that follows the number of steps that fill the
time (of the steps alone: not the start, and not the one validation at the end, by which
nothing is chosen); a training then makes that many however long they take. Everything is
cut down to what two cores can do, unless ``--full-size``, which wants a GPU, leaves the
recipes' spacings, patches and batches as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
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
from timed_commands import Words, alone_in, forget_others, once, remove, seconds_per_step, steps_in

from ct_attn.manifest import file_digest
from ct_attn.recipe import read_recipe

CT_ATTN = Path(sys.executable).with_name("ct-attn")
#: Enough that patches drawn ahead, while a training starts, do not make the steps look cheaper than they are.
TIMED_WITH = (10, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Where it is kept, the manifest of its cohort, and how large its forms are."""

    output: Path
    full_size: bool

    @property
    def manifest(self) -> Path:
        return self.output / "cohort" / "manifest.json"

    def folder_of(self, training: Training) -> Path:
        return self.output / "trainings" / training.name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "study")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training, on an idle machine")
    parser.add_argument("--full-size", action="store_true", help="the recipes' own spacings and patches")
    parser.add_argument("--only", choices=("time", "results"), help="this, and no more")
    options = parser.parse_args()
    study = Study(output=options.output.resolve(), full_size=options.full_size)
    failed: list[str] = []
    if options.only != "results":
        with alone_in(study.output):
            draw(study.manifest, *COHORT)
            steps, failed = all_steps(study, options.minutes)
            if options.only is None:
                failed += work_through(study, steps)
    write_results(study.output, minutes=options.minutes, full_size=study.full_size)
    if failed:
        sys.exit(f"{len(failed)} failed, as their logs say: {', '.join(failed)}")


def all_steps(study: Study, minutes: float) -> tuple[dict[str, int], list[str]]:
    """How many steps every form makes, and the forms that could not be timed: the next start tries again."""
    steps, failed = {}, []
    for form in forms():
        try:
            steps[form.key] = steps_of(form, study, minutes)
        except (subprocess.CalledProcessError, ValueError) as error:
            failed.append(f"timing {form.label}")
            print(f"failed  timing {form.label}: {error}", flush=True)
            if isinstance(error, ValueError):  # disturbed: these seconds are worth nothing
                remove(study.output / "timings" / form.key)
    return steps, failed


def work_through(study: Study, steps: dict[str, int]) -> list[str]:
    """All of the queue whose steps are known, then the worse scans; the names of what failed."""
    jobs: dict[str, Callable[[], None]] = {
        training.name: lambda training=training: carry_out(training, study, steps[training.form.key])
        for training in QUEUE
        if training.form.key in steps
    }
    jobs |= {
        f"{training.name}, {condition}": lambda training=training, condition=condition: ask(
            training, condition, study
        )
        for condition in CONDITIONS
        for training in ASKED
    }
    failed = []
    for name, job in jobs.items():
        try:
            job()
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            failed.append(name)
            print(f"failed  {name}: {error}", flush=True)
        else:
            print(f"done  {name}", flush=True)
    return failed


def forms() -> Iterator[Form]:
    """Each once, in the order of the queue."""
    seen = set()
    for training in QUEUE:
        if training.form.key not in seen:
            seen.add(training.form.key)
            yield training.form


def draw(manifest: Path, *words: str) -> None:
    """A cohort, unless it is there."""
    folder = manifest.parent
    log = folder.with_name(f"{folder.name}_log")
    jobs = ("--jobs", str(os.cpu_count() or 1))  # draws the same bytes as one
    once("drawn", [CT_ATTN, "phantom", "-o", folder, *words, *jobs], folder, log, cohort=" ".join(words))


def fewer_cases(manifest: Path, cases: int) -> Path:
    """A manifest beside ``manifest``: one validation case, and the first ``cases`` to train on."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    validation = [case for case in content["training"] if case["fold"] == 0]
    others = [case for case in content["training"] if case["fold"] != 0]
    content["training"] = validation[:1] + others[:cases]
    reduced = manifest.with_name(f"manifest_{cases}.json")
    reduced.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return reduced


def steps_of(form: Form, study: Study, minutes: float) -> int:
    """How many steps of ``form`` fill the time."""
    folder = study.output / "timings" / form.key
    train = Training(form=form, seed=0)
    wall_s = {}
    # The first brings the cases into the cache beside the manifest, and doesn't count.
    for what, steps in (("cached", TIMED_WITH[0]), *((f"timed_{steps}", steps) for steps in TIMED_WITH)):
        run = folder / what
        command = words(train, study, run, steps)
        wall_s[steps] = once(what, command, run, folder, **facts_of(train, study, steps))["wall_s"]
        shutil.rmtree(run, ignore_errors=True)
    return steps_in(60 * minutes, seconds_per_step(wall_s)[0], 0.0, epochs=EPOCHS)


def words(training: Training, study: Study, run: Path, steps: int) -> Words:
    """The command that trains."""
    changes = (
        *training.form.all_changes(full_size=study.full_size),
        f"training.batches_per_epoch={steps // EPOCHS}",
        f"training.seed={training.seed}",
    )
    data = fewer_cases(study.manifest, training.cases)
    command: Words = [CT_ATTN, "train", training.form.recipe, "--data", data, "-o", run]
    command += [word for change in changes for word in ("--set", change)]
    if training.start is not None:
        command += ["--init-from", study.output / "trainings" / training.start / "run" / "model"]
    return command


def facts_of(training: Training, study: Study, steps: int) -> dict[str, int | str]:
    """What makes the training what it is: with another recipe or start it is another."""
    changes = training.form.all_changes(full_size=study.full_size)
    recipe = read_recipe(training.form.recipe, changes).model_dump_json()
    facts: dict[str, int | str] = {
        "steps": steps,
        "recipe": sha256(recipe.encode()).hexdigest(),
        "cohort": " ".join(COHORT),
    }
    if training.start is not None:
        start = study.output / "trainings" / training.start / "run" / "model" / "model.safetensors"
        facts["start"] = file_digest(start)
    return facts


def carry_out(training: Training, study: Study, steps: int) -> None:
    """Train, predict and score, as far as that is not done yet."""
    folder = study.folder_of(training)
    run = folder / "run"
    facts = facts_of(training, study, steps)
    forget_others(folder, facts)
    once("trained", words(training, study, run, steps), run, folder, **facts)
    for state in run.glob("state*.ckpt"):  # nobody goes on with it, and all of them fill a disk
        state.unlink()
    score(run / "model", study.manifest, folder, "usual")


def ask(training: Training, condition: str, study: Study) -> None:
    """Draw the test cases worse, unless they are, and score what the network makes of them."""
    name = key_of(condition)
    manifest = study.output / "worse" / name / "manifest.json"
    cases = ("--cases", "2", "--folds", "2", "--test", str(N_TEST), "--seed", str(SEED), *SCANNER)
    draw(manifest, *cases, "--degrade", CONDITIONS[condition])
    folder = study.folder_of(training)
    if not (folder / "trained.json").is_file():
        raise FileNotFoundError(f"{folder.name} has not been trained")
    score(folder / "run" / "model", manifest, folder, name)


def score(model: Path, manifest: Path, folder: Path, name: str) -> None:
    masks, evaluation = folder / f"masks_{name}", folder / f"evaluation_{name}"
    predict: Words = [CT_ATTN, "predict", "-m", model, "-i", manifest.parent / "imagesTs", "-o", masks]
    once(f"predicted_{name}", predict, masks, folder)
    evaluate: Words = [CT_ATTN, "evaluate", "--truth", manifest, "--predicted", masks, "-o", evaluation]
    once(f"scored_{name}", [*evaluate, "--pictures", "0", "--viewer", "0"], evaluation, folder)


if __name__ == "__main__":
    main()
