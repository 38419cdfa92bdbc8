"""Scans predicted by the workers of a Dask cluster: on this machine, at an address, under SLURM.

Every worker process loads the models once. It works on two cases at a time, of which one
is computed while the other is read or written. All processes must see the scans, the
models and the outputs under the same paths.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ct_attn import __version__
from ct_attn.errors import UserError
from ct_attn.prediction import stages
from ct_attn.prediction.cases import Case
from ct_attn.prediction.record import OutputFiles, PredictionRecord
from ct_attn.prediction.request import Resolved
from ct_attn.scan_io.scan import ScanFile

if TYPE_CHECKING:
    from distributed import Client

    from ct_attn.inference.predictor import Predictor

#: Cases that a worker holds: one computed, one read or written.
CASES_AT_A_TIME = 2
#: A worker that was lost with a case is replaced so often before the case is given up.
RETRIES = 2
#: So long is waited for the scheduler.
CONNECT_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One case, with all that a worker must know."""

    case: Case
    resolved: Resolved
    version: str
    threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Why a case failed; it is written down beside the outputs already."""

    message: str


Outcome = PredictionRecord | Failed


def run_on_cluster(
    cases: Sequence[Case], resolved: Resolved, *, cluster: str, workers: int
) -> Iterator[tuple[Case, Outcome]]:
    """Each case with its record or failure, as they get done.

    ``cluster``: ``local``, ``slurm``, or the address of a scheduler (``tcp://HOST:PORT``).
    ``workers`` are started for the first two. A worker that is killed loses its cases,
    which others take up; a case that has killed :data:`RETRIES` + 1 of them has failed.
    Raises :class:`UserError` when the cluster can't be had or is lost on the way.
    """
    _require_installed(cluster)
    from distributed import as_completed  # noqa: PLC0415 - an extra

    resolved = _with_absolute_models(resolved)
    threads = max(1, (os.cpu_count() or 1) // workers) if cluster == "local" else None
    with _client(cluster, workers) as client:
        submitted = {}
        for case in cases:
            job = Job(
                case=_with_absolute_paths(case), resolved=resolved, version=__version__, threads=threads
            )
            submitted[client.submit(carry_out, job, pure=False)] = case
        for future in as_completed(list(submitted)):
            case = submitted.pop(future)
            yield case, _outcome(future, case, cluster)


def carry_out(job: Job) -> Outcome:
    """Predict one case in this worker process. Nothing but a lost process keeps it from answering."""
    try:
        if job.version != __version__:
            raise UserError(
                "a worker of the cluster",
                expected=f"ct_attn {job.version}",
                found=f"ct_attn {__version__}",
                remedy="install the same version everywhere",
            )
        with _AT_A_TIME:
            predictor = _WORKER.predictor(job)
            loaded = stages.read(job.case, job.resolved.request.reading)
            with _COMPUTING:
                computed = stages.compute(predictor, loaded, job.resolved, _unheard)
            return stages.write(job.case, computed, job.resolved)
    except Exception as error:
        return Failed(message=stages.write_failure(job.case, error))


class _Worker:
    """The models of this process, loaded once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: tuple[Resolved, Predictor] | None = None

    def predictor(self, job: Job) -> Predictor:
        """The loaded models of ``job``, which are those of the job before in all but new runs."""
        with self._lock:
            if self._loaded is None or self._loaded[0] != job.resolved:
                import torch  # noqa: PLC0415 - the process that hands out cases doesn't need it

                from ct_attn.inference.predictor import Predictor  # noqa: PLC0415

                if job.threads is not None:
                    torch.set_num_threads(job.threads)
                request = job.resolved.request
                self._loaded = job.resolved, Predictor.load(request.models, request.inference)
            return self._loaded[1]


_WORKER = _Worker()
_AT_A_TIME = threading.BoundedSemaphore(CASES_AT_A_TIME)
_COMPUTING = threading.Lock()


def _unheard(done: int, total: int) -> None:
    """A window is done; who waits is elsewhere."""


def _outcome(future: Any, case: Case, cluster: str) -> Outcome:
    if future.status in ("cancelled", "lost"):
        raise UserError(
            f"--cluster {cluster}",
            expected="a scheduler to the end",
            found="one that was lost",
            remedy="run the command again; what is done is kept",
        )
    try:
        outcome = future.result()
    except Exception as error:  # KilledWorker, or what could not be sent
        lost = UserError(
            case.scan.path,
            expected="a worker that lives until the case is done",
            found=f"{RETRIES + 1} that were lost ({type(error).__name__})",
            remedy="give workers more memory, or predict this scan alone",
        )
        return Failed(message=stages.write_failure(case, lost))
    assert isinstance(outcome, PredictionRecord | Failed)
    return outcome


@contextmanager
def _client(cluster: str, workers: int) -> Iterator[Client]:
    """A client of the cluster; what was started for it ends with it."""
    import dask  # noqa: PLC0415 - an extra
    from distributed import Client  # noqa: PLC0415

    # Workers that stop tell of lost connections with tracebacks; what matters is said here.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    settings = {"distributed.scheduler.allowed-failures": RETRIES, "logging.distributed": "critical"}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        try:
            address = cluster if "://" in cluster else stack.enter_context(_started(cluster, workers))
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"--cluster {cluster}",
                expected="a scheduler that answers",
                found=str(error) or type(error).__name__,
                remedy="start one with dask scheduler, or say --cluster local",
            ) from error
        yield client


@contextmanager
def _started(cluster: str, workers: int) -> Iterator[Any]:
    """A cluster of our own. A local one bounds no memory: what a model takes isn't Dask's to judge."""
    from distributed import LocalCluster  # noqa: PLC0415 - an extra

    if cluster == "local":
        with LocalCluster(
            n_workers=workers,
            threads_per_worker=CASES_AT_A_TIME,
            processes=True,
            memory_limit=0,
            dashboard_address=None,
        ) as started:
            yield started
        return
    from dask_jobqueue import SLURMCluster  # noqa: PLC0415

    # Queue, cores, memory and time are those of the user's own jobqueue.yaml.
    with SLURMCluster(processes=1, worker_extra_args=["--nthreads", str(CASES_AT_A_TIME)]) as started:
        started.scale(jobs=workers)
        yield started


def _require_installed(cluster: str) -> None:
    if cluster not in ("local", "slurm") and "://" not in cluster:
        raise UserError(
            f"--cluster {cluster}",
            expected="local, slurm or tcp://HOST:PORT",
            found=cluster,
            remedy="mend it",
        )
    needed = ["distributed"] + ["dask_jobqueue"] * (cluster == "slurm")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--cluster {cluster}",
            expected=f"the package {' and '.join(missing)}",
            found="none",
            remedy="pip install 'ct-attn[cluster]'",
        )


def _with_absolute_models(resolved: Resolved) -> Resolved:
    models = tuple(model.resolve() for model in resolved.request.models)
    return replace(resolved, request=replace(resolved.request, models=models))


def _with_absolute_paths(case: Case) -> Case:
    """Workers have another working directory."""
    scan = ScanFile(name=case.scan.name, path=case.scan.path.absolute())
    return replace(case, scan=scan, files=OutputFiles(mask=case.files.mask.absolute()))
