"""Many cases at a time, each in a process of its own memory."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

from ct_attn.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], *, jobs: int
) -> Iterator[tuple[Item, Result]]:
    """Each item with ``function`` of it, in the order in which they get done.

    One job runs in this process. With more, ``function`` and the items are pickled; the
    worker processes end with this one, however it ends. What ``function`` raises is
    raised here and stops what has not begun. Raises :class:`UserError` when a worker
    was killed.
    """
    if jobs == 1 or len(items) < 2:
        for item in items:
            yield item, function(item)
        return
    remedy = "run the command again with fewer --jobs; what is done is kept"
    with _pool(min(jobs, len(items)), remedy=remedy) as pool:
        waiting = {pool.submit(function, item): item for item in items}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


@contextmanager
def in_order(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Iterator[Iterator[Result]]:
    """What ``function`` makes of ``items``, in their order; all else as in :func:`run_in_processes`.

    A context, so that whatever stops the one who reads the results stops the work, too.
    """
    if workers == 1 or len(items) < 2:
        yield map(function, items)
        return
    with _pool(min(workers, len(items)), remedy="give fewer --workers") as pool:
        yield pool.map(function, items)


@contextmanager
def _pool(jobs: int, *, remedy: str) -> Iterator[ProcessPoolExecutor]:
    # Spawned, not forked: a forked child of a process that runs threads can hang.
    pool = ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process",
            expected=f"{jobs} processes that finish their work",
            found="one that was killed, most likely for want of memory",
            remedy=remedy,
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and go when it goes: nothing may write on after a kill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
