"""The step from scans and models to masks, for one scan or a cohort; and how far a cohort is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, TaskID

from ct_attn.prediction import stages
from ct_attn.prediction.cases import (
    Case,
    State,
    Status,
    examine,
    find_cases,
    forget_refusals,
    require_replaceable,
    shard,
)
from ct_attn.prediction.cluster import Failed, run_on_cluster
from ct_attn.prediction.overlapping import run_overlapping
from ct_attn.prediction.record import PredictionRecord, read_record
from ct_attn.prediction.request import Request, Resolved, resolve
from ct_attn.prediction.tables import write_statistics
from ct_attn.scan_io import nifti

#: Hears, of the scan so named (empty: of the whole run), what is worth knowing.
OnScanNote = Callable[[str, str], None]


def _no_scan_note(name: str, note: str) -> None:
    """Let a note pass unheard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """How many scans are shared out.

    ``cluster``: None computes in this process; ``local``, ``slurm`` or an address as
    :func:`~ct_attn.prediction.cluster.run_on_cluster` takes them, with ``workers``.
    ``part`` (from 0) of ``n_parts``: only every ``n_parts``-th scan is predicted.
    """

    cluster: str | None = None
    workers: int = 2
    n_parts: int = 1
    part: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What was done.

    ``masks`` were written now, ``skipped`` were there already. ``failures``: for each scan
    that failed, why. ``statistics``: the files over all cases, where they were asked for.
    """

    masks: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()
    failures: tuple[str, ...] = ()
    statistics: tuple[Path, ...] = ()


def predict(
    request: Request,
    sources: Sequence[Path],
    output: Path,
    *,
    progress: Progress,
    overwrite: bool = False,
    cohort: Cohort | None = None,
    on_note: OnScanNote = _no_scan_note,
) -> Predictions:
    """Write a mask and a record for every scan in ``sources`` as ``request`` says.

    A source is a scan file, a folder of them, a DICOM folder or a folder of DICOM folders.
    ``output`` is a file for one scan (``.nii.gz``), else a folder that gets ``<name of the
    scan>.nii.gz``, ``.json`` and what else was asked for.

    What is done is skipped: a mask whose record names the same scan, models and settings.
    A mask of a scan that has changed is made again, with a note; one of other models or
    settings, one that was changed by hand, or that has no record, only with ``overwrite``. A
    scan that fails does not stop the others unless it is the only one; its cause is written
    into ``<name>.failed.json``. A DICOM folder whose name repeats what its headers say of the patient
    fails so, as ``unnamed_<number>``, unless ``output`` is a file.

    Raises :class:`UserError` for a wrong model, source or output, or a mask that may not be
    replaced, before anything is predicted.
    """
    cohort = cohort or Cohort()
    resolved = resolve(request)
    found = find_cases(sources, output)
    cases = shard(found, part=cohort.part, of=cohort.n_parts)
    statuses = [examine(case, resolved) for case in cases]
    if not overwrite:
        require_replaceable(statuses)
    forget_refusals(found, output)
    todo = [status for status in statuses if overwrite or status.state != State.DONE]
    _say_why(todo, on_note)
    failures: dict[str, str] = {}
    masks: dict[str, Path] = {}
    task = progress.add_task("predicting", total=len(cases), completed=len(cases) - len(todo))
    waiting = [status.case for status in todo]
    outcomes: Iterator[tuple[Case, PredictionRecord | Failed | Exception]]
    if cohort.cluster is None:
        outcomes = _here(waiting, resolved, progress, task, on_note)
    else:
        outcomes = _elsewhere(waiting, resolved, cohort, progress, task)
    for case, outcome in outcomes:
        if isinstance(outcome, Exception):
            if len(found) == 1:
                raise outcome
            failures[case.name] = stages.write_failure(case, outcome)
            continue
        if isinstance(outcome, Failed):
            failures[case.name] = outcome.message
            continue
        masks[case.name] = case.files.mask
        for note in (*outcome.notes, *(f"warning: {warning}" for warning in outcome.warnings)):
            on_note(case.name, note)
    if masks and request.outputs.statistics and resolved.uncalibrated:
        on_note("", resolved.uncalibrated)  # they hold the confidence
    skipped = [status.case.files.mask for status in statuses if status.case not in waiting]
    return Predictions(
        masks=tuple(masks[name] for name in sorted(masks)),
        skipped=tuple(skipped),
        failures=tuple(failures[name] for name in sorted(failures)),
        statistics=_statistics(cases, output, cohort) if request.outputs.statistics else (),
    )


def status(
    sources: Sequence[Path], output: Path, *, models: Sequence[Path] = (), progress: Progress
) -> list[Status]:
    """How far every scan of ``sources`` is in ``output``.

    With ``models``, a mask made by others is not done. Outputs and options are not
    judged: a cohort is done with whatever it was asked for. Raises :class:`UserError` as
    :func:`predict` does for wrong paths.
    """
    digests = resolve(Request(models=tuple(models), filter="off")).model_digests if models else None
    cases = find_cases(sources, output)
    return [examine(case, models=digests) for case in progress.track(cases, description="looking")]


def _say_why(todo: Sequence[Status], on_note: OnScanNote) -> None:
    for one in todo:
        if one.state in (State.OTHER_SCAN, State.INCOMPLETE, State.UNFINISHED):
            on_note(one.case.name, f"predicted again: {one.reason}")


def _here(
    cases: Sequence[Case], resolved: Resolved, progress: Progress, task: TaskID, on_note: OnScanNote
) -> Iterator[tuple[Case, PredictionRecord | Exception]]:
    """Predict ``cases`` in this process, reading one ahead and writing one behind."""
    if not cases:
        return
    from ct_attn.inference.predictor import Predictor  # noqa: PLC0415 - not where nothing is to be done

    request = resolved.request
    predictor = Predictor.load(request.models, request.inference, lambda note: on_note("", note))
    before = progress.tasks[task].completed if not progress.disable else 0.0
    n_done = 0

    def compute(case: Case, loaded: stages.Loaded) -> stages.Computed:
        def on_window(done: int, total: int) -> None:
            progress.update(task, completed=before + n_done + done / total)

        progress.update(task, description=f"predicting {case.name}")
        return stages.compute(predictor, loaded, resolved, on_window)

    for case, outcome in run_overlapping(
        cases,
        read=lambda case: stages.read(case, request.reading),
        compute=compute,
        write=lambda case, computed: stages.write(case, computed, resolved),
    ):
        n_done += 1
        progress.update(task, completed=before + n_done)
        yield case, outcome


def _elsewhere(
    cases: Sequence[Case], resolved: Resolved, cohort: Cohort, progress: Progress, task: TaskID
) -> Iterator[tuple[Case, PredictionRecord | Failed]]:
    """Predict ``cases`` by the workers of a cluster."""
    if not cases or cohort.cluster is None:
        return
    progress.update(task, description=f"predicting on {cohort.cluster}")
    for case, outcome in run_on_cluster(cases, resolved, cluster=cohort.cluster, workers=cohort.workers):
        progress.update(task, advance=1)
        yield case, outcome


def _statistics(cases: Sequence[Case], output: Path, cohort: Cohort) -> tuple[Path, ...]:
    """Write the statistics of all ``cases`` that have a record, those of earlier runs too."""
    records = {case.name: read_record(case.files) for case in cases}
    measured = {
        name: record.statistics
        for name, record in records.items()
        if record and record.statistics is not None
    }
    if not measured:
        return ()
    part = f"_part_{cohort.part}_of_{cohort.n_parts}" if cohort.n_parts > 1 else ""
    if nifti.has_nifti_name(output):
        return write_statistics(measured, output.with_name(f"{nifti.stem(output)}_statistics.csv"))
    return write_statistics(measured, output / f"statistics{part}.csv")
