"""Where a training run keeps what it makes, and whether a run may go on there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ct_attn.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The files of a run. All but ``recipe``, ``record`` and the states follow from the newest state."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def record(self) -> Path:
        """What the run was started with; a resumed run must match it."""
        return self.path / "run.json"

    @property
    def log(self) -> Path:
        return self.path / "log.csv"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def picture(self) -> Path:
        return self.path / "progress.png"

    @property
    def board(self) -> Path:
        """The log for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def bad_batch(self) -> Path:
        """What a loss that was no number was computed on."""
        return self.path / "non_finite_batch.safetensors"

    @property
    def state(self) -> Path:
        return self.path / "state.ckpt"

    @property
    def previous_state(self) -> Path:
        """The state of the epoch before, for when the newest is damaged."""
        return self.path / "state.previous.ckpt"

    @property
    def cache(self) -> Path:
        """Prepared cases, where there is no better place; no sign of a run."""
        return self.path / "cache"


def claim(run: RunFolder, record: Mapping[str, str | int], *, resume: bool) -> None:
    """Make sure that ``run`` is new, or when resuming, that it is the run ``record`` tells of.

    Raises :class:`UserError` otherwise.
    """
    if not resume:
        if run.path.exists() and any(path != run.cache for path in run.path.iterdir()):
            raise UserError(
                run.path,
                expected="a new or empty output folder",
                found="files in it",
                remedy="choose another -o, or add --resume to go on with that run",
            )
        return
    if not run.state.is_file() and not run.previous_state.is_file():
        return  # stopped before the end of its first epoch, or never started: begins anew
    earlier = _read_record(run.record)
    changed = sorted(key for key in {**record, **earlier} if earlier.get(key) != record.get(key))
    if changed:
        raise UserError(
            run.path,
            expected="the run that --resume goes on with",
            found=f"one with another {', '.join(changed)}",
            remedy="give the same recipe, manifest, fold and number of processes, or choose another -o",
        )


def _read_record(file: Path) -> dict[str, str | int]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        record, found = None, str(error)
    else:
        found = type(record).__name__
    if not isinstance(record, dict):
        raise UserError(
            file, expected="the record of the run to go on with", found=found, remedy="choose another -o"
        )
    return record
