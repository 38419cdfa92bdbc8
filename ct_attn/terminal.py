"""Where commands write: progress and errors to standard error, results to standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress

stderr = Console(stderr=True, soft_wrap=True, highlight=False)
stdout = Console(soft_wrap=True, highlight=False)

#: The ``--device`` of every command that computes.
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def progress_bar() -> Progress:
    """A bar with count, time spent and time left, on standard error."""
    from rich.progress import (  # noqa: PLC0415 - not needed for --help
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column  # noqa: PLC0415 - likewise

    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
    )


def report_failures(failures: Sequence[str], n_cases: int) -> None:
    """Name and count what failed, and leave with exit code 1 if anything did."""
    for failure in failures:
        stderr.print(f"failed: {failure}", markup=False)
    if failures:
        stderr.print(f"{len(failures)} of {n_cases} cases failed")
        raise typer.Exit(1)
