"""Reading, computing and writing of neighbouring cases at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")
Computed = TypeVar("Computed")
Result = TypeVar("Result")


def run_overlapping(
    items: Sequence[Item],
    *,
    read: Callable[[Item], Content],
    compute: Callable[[Item, Content], Computed],
    write: Callable[[Item, Computed], Result],
) -> Iterator[tuple[Item, Result | Exception]]:
    """Each item with its result, or with what was raised on the way, in their order.

    A thread reads the next item while ``compute`` runs in this one, and another writes the
    one before. So no more than three items are held at a time: one that was read ahead,
    one computed, one written. What is no ``Exception`` (Ctrl-C) is raised here, once what is
    being written is written.
    """
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
        ahead = reader.submit(read, items[0]) if items else None
        behind: tuple[Item, Future[Result]] | None = None
        for item, following in zip(items, [*items[1:], None], strict=False):
            assert ahead is not None  # begun one item ago
            outcome: Computed | Exception
            try:
                content = ahead.result()
            except Exception as error:
                outcome = error
                ahead = _ahead(reader, read, following)
            else:
                ahead = _ahead(reader, read, following)
                outcome = _attempt(compute, item, content)
                del content
            if behind is not None:
                finished = _finished(*behind)
                yield finished
            behind = None
            if isinstance(outcome, Exception):
                yield item, outcome
            else:
                behind = item, writer.submit(write, item, outcome)
            del outcome
        if behind is not None:
            finished = _finished(*behind)
            yield finished


def _ahead(
    reader: ThreadPoolExecutor, read: Callable[[Item], Content], item: Item | None
) -> Future[Content] | None:
    return None if item is None else reader.submit(read, item)


def _attempt(
    compute: Callable[[Item, Content], Computed], item: Item, content: Content
) -> Computed | Exception:
    """An error is handed back: a case never stops the others."""
    try:
        return compute(item, content)
    except Exception as error:
        return error


def _finished(item: Item, future: Future[Result]) -> tuple[Item, Result | Exception]:
    try:
        return item, future.result()
    except Exception as error:
        return item, error
