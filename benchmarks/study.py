"""What attention buys on the synthetic cohort: a queue of trainings of equal time, and what came of them.

    python benchmarks/study.py -o runs/study

draws the cohort, times a step of every form of network, trains all of ``study_design.QUEUE``
for ``--minutes`` each, predicts the test cases (and worse copies of them) and scores them, all
through ``ct-attn``. It can be stopped at any moment and started again: what is done is kept,
and a training that was cut off, or is of another recipe now, begins anew. One that fails is named and
left out; the next start tries it again. Tables and figures of what is done so far go to
``benchmarks/results/study/`` and into ``docs/study.md``; ``--only results`` does no more.

``--jobs`` commands run at a time, each with its share of the cores: two trainings of one core
each are done sooner than one after the other on both, since much beside the steps has one
thread. A training's time is that of the whole machine: with two jobs, each takes twice ``--minutes``.

So that what else a machine does takes nothing from anyone, a step of every form is timed
first (``step_seconds.py``), which wants a machine that does nothing else. From that follows
the number of steps that fill the time (of the steps alone: not the start, and not the one
validation at the end, by which nothing is chosen); a training then makes that many however long they
take. Everything is cut down to what two cores can do, unless ``--full-size``, which wants
a GPU, leaves the recipes' spacings, patches and batches as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    SECOND_SEED,
    SEED,
    Form,
    Training,
    key_of,
)
from study_results import write_results
from timed_commands import Words, alone_in, forget_others, once, steps_in

from ct_attn import atomic
from ct_attn.manifest import file_digest
from ct_attn.recipe import read_recipe

CT_ATTN = Path(sys.executable).with_name("ct-attn")
STEP_SECONDS = Path(__file__).with_name("step_seconds.py")
N_CORES = os.cpu_count() or 1
Job = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Where it is kept, how large its forms are, and how many jobs run at a time."""

    output: Path
    full_size: bool
    jobs: int = 1

    @property
    def manifest(self) -> Path:
        return self.output / "cohort" / "manifest.json"

    @property
    def threads(self) -> int:
        """Of each job."""
        return max(1, N_CORES // self.jobs)

    def worse(self, condition: str) -> Path:
        """The manifest of the test cases in this condition."""
        return self.output / "worse" / key_of(condition) / "manifest.json"

    def folder_of(self, training: Training) -> Path:
        return self.output / "trainings" / training.name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "study")
    parser.add_argument("--minutes", type=float, default=1.5, help="of each training, of the whole machine")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time (1 on a GPU)")
    parser.add_argument("--full-size", action="store_true", help="the recipes' own spacings and patches")
    parser.add_argument("--only", choices=("time", "results"), help="this, and no more")
    options = parser.parse_args()
    study = Study(output=options.output.resolve(), full_size=options.full_size, jobs=options.jobs)
    failed: list[str] = []
    if options.only != "results":
        with alone_in(study.output):
            draw(study.manifest, *COHORT)
            for cases in sorted({training.cases for training in QUEUE}):
                fewer_cases(study.manifest, cases)
            steps, failed = all_steps(study, options.minutes)
            if options.only is None:
                failed += work_through(study, steps)
    write_results(study.output, minutes=options.minutes, full_size=study.full_size)
    if failed:
        sys.exit(f"{len(failed)} failed, as their logs say: {', '.join(failed)}")


def all_steps(study: Study, minutes: float) -> tuple[dict[str, int], list[str]]:
    """How many steps every form makes, and the forms that could not be timed: the next start tries again."""
    steps: dict[str, int] = {}

    def time(form: Form) -> None:
        steps[form.key] = steps_of(form, study, minutes)

    jobs: dict[str, Job] = {f"timing {form.label}": lambda form=form: time(form) for form in forms()}
    return steps, all_of(jobs, study.jobs)


def work_through(study: Study, steps: Mapping[str, int]) -> list[str]:
    """All of the queue whose steps are known, and the worse scans; the names of what failed."""

    def trainings(which: Iterable[Training]) -> dict[str, Job]:
        return {
            training.name: lambda training=training: carry_out(training, study, steps[training.form.key])
            for training in which
            if training.form.key in steps
        }

    drawings: dict[str, Job] = {
        f"scans with {condition}": lambda condition=condition: draw_worse(condition, study)
        for condition in CONDITIONS
    }
    questions: dict[str, Job] = {
        f"{training.name}, {condition}": lambda training=training, condition=condition: ask(
            training, condition, study
        )
        for condition in CONDITIONS
        for training in ASKED
    }
    failed = all_of(trainings(one for one in QUEUE if one not in SECOND_SEED), study.jobs)
    failed += all_of(drawings, 1)  # each takes as many processes as there are cores
    failed += all_of(questions, study.jobs)
    return failed + all_of(trainings(SECOND_SEED), study.jobs)


def all_of(jobs: Mapping[str, Job], at_a_time: int) -> list[str]:
    """Do all ``jobs``, begun in their order; the names of those that failed."""
    failed = []
    with ThreadPoolExecutor(at_a_time) as pool:
        running = {name: pool.submit(job) for name, job in jobs.items()}
        try:
            for name, job in running.items():
                error = job.exception()
                if error is None:
                    print(f"done  {name}", flush=True)
                elif isinstance(error, (subprocess.CalledProcessError, FileNotFoundError, ValueError)):
                    failed.append(name)
                    print(f"failed  {name}: {error}", flush=True)
                else:
                    raise error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
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
    jobs = ("--jobs", str(N_CORES))  # draws the same bytes as one
    once("drawn", [CT_ATTN, "phantom", "-o", folder, *words, *jobs], folder, log, cohort=" ".join(words))


def fewer_cases(manifest: Path, cases: int) -> Path:
    """A manifest beside ``manifest``: one validation case, and the first ``cases`` to train on."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    validation = [case for case in content["training"] if case["fold"] == 0]
    others = [case for case in content["training"] if case["fold"] != 0]
    content["training"] = validation[:1] + others[:cases]
    reduced = manifest.with_name(f"manifest_{cases}.json")
    text = json.dumps(content, indent=1) + "\n"
    if not reduced.is_file() or reduced.read_text(encoding="utf-8") != text:
        atomic.write_text(reduced, text)
    return reduced


def steps_of(form: Form, study: Study, minutes: float) -> int:
    """How many steps of ``form`` fill the time."""
    folder = study.output / "timings"
    train = Training(form=form, seed=0)
    measured = folder / f"{form.key}_step.json"
    facts = facts_of(train, study, 0)
    command: Words = [sys.executable, STEP_SECONDS, form.recipe, "-o", measured]
    command += ["--data", fewer_cases(study.manifest, train.cases), *settings(train, study)]
    once(form.key, command, measured, folder, threads=study.threads, jobs=study.jobs, **facts)
    step_s = json.loads(measured.read_text(encoding="utf-8"))["step_s"]
    return steps_in(60 * minutes * study.jobs, step_s, 0.0, epochs=EPOCHS)


def settings(training: Training, study: Study, *more: str) -> list[str]:
    """What of the recipe is set on the command line."""
    changes = (
        *training.form.all_changes(full_size=study.full_size),
        f"training.seed={training.seed}",
        *more,
    )
    return [word for change in changes for word in ("--set", change)]


def words(training: Training, study: Study, run: Path, steps: int) -> Words:
    """The command that trains."""
    data = fewer_cases(study.manifest, training.cases)
    command: Words = [CT_ATTN, "train", training.form.recipe, "--data", data, "-o", run]
    command += settings(training, study, f"training.batches_per_epoch={steps // EPOCHS}")
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
    once("trained", words(training, study, run, steps), run, folder, threads=study.threads, **facts)
    for state in run.glob("state*.ckpt"):  # nobody goes on with it, and all of them fill a disk
        state.unlink()
    score(study, run / "model", study.manifest, folder, "usual")


def draw_worse(condition: str, study: Study) -> None:
    """The test cases in this condition, unless they are there."""
    cases = ("--cases", "2", "--folds", "2", "--test", str(N_TEST), "--seed", str(SEED), *SCANNER)
    draw(study.worse(condition), *cases, "--degrade", CONDITIONS[condition])


def ask(training: Training, condition: str, study: Study) -> None:
    """Score what the network makes of the test cases in this condition."""
    folder, manifest = study.folder_of(training), study.worse(condition)
    for needed in (folder / "trained.json", manifest):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is not there")
    score(study, folder / "run" / "model", manifest, folder, key_of(condition))


def score(study: Study, model: Path, manifest: Path, folder: Path, name: str) -> None:
    masks, evaluation = folder / f"masks_{name}", folder / f"evaluation_{name}"
    predict: Words = [CT_ATTN, "predict", "-m", model, "-i", manifest.parent / "imagesTs", "-o", masks]
    once(f"predicted_{name}", predict, masks, folder, threads=study.threads)
    evaluate: Words = [CT_ATTN, "evaluate", "--truth", manifest, "--predicted", masks, "-o", evaluation]
    evaluate += ["--pictures", "0", "--viewer", "0"]
    once(f"scored_{name}", evaluate, evaluation, folder, threads=study.threads)


if __name__ == "__main__":
    main()
