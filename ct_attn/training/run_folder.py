"""Where a training run keeps what it makes, and whether a run may go on there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ct_attn.errors import UserError
from ct_attn.model_file import FILE_NAME, read_header
from ct_attn.recipe import Recipe

#: What records of before lack; a run goes on with what it finds, as it did then.
_ADDED = ("device", "precision")
#: Short enough to be said as it is, where it changed.
_SHORT = ("device", "precision", "processes", "torch", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The files of a run. All but ``recipe``, ``record`` and the states follow from the newest state."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def last(self) -> Path:
        """The model of the newest epoch, as ``model`` is that of the best."""
        return self.path / "last"

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
    earlier = {**{key: record[key] for key in _ADDED if key in record}, **_read_record(run.record)}
    if _is_recipe(earlier.get("recipe"), record.get("recipe")):
        earlier["recipe"] = record["recipe"]
    changed = sorted(key for key in {**record, **earlier} if earlier.get(key) != record.get(key))
    if changed:
        there, here = (
            ", ".join(str(of.get(key, "unknown")) for key in changed if key in _SHORT)
            for of in (earlier, record)
        )
        raise UserError(
            run.path,
            expected="the run that --resume goes on with",
            found=f"one with another {', '.join(changed)}" + (f" ({there}; here {here})" if there else ""),
            remedy="go on with the same recipe, manifest, fold and processes, on the same kind of device "
            "and under the same versions of ct_attn and torch, or choose another -o",
        )


def _is_recipe(earlier: object, recipe: object) -> bool:
    """Whether two recipes as JSON are the same; an earlier version knew fewer fields, each with one value."""
    try:
        return Recipe.model_validate_json(str(earlier)) == Recipe.model_validate_json(str(recipe))
    except ValidationError:
        return False


def unfinished(run: RunFolder, recipe: Recipe) -> str | None:
    """How far the training of ``recipe`` in ``run`` has come, in words; None where it has come to its end.

    That is its last epoch in the log, or where it stopped early, what the last model says. Of a
    model without a log, and of an early stop before there was a last model, nobody can tell.
    """
    if not run.log.is_file():
        return None
    asked = recipe.training.epochs
    done = max(0, len(run.log.read_text(encoding="utf-8").splitlines()) - 1)
    if done >= asked:
        return None
    if recipe.training.early_stopping_epochs is not None:
        if not (run.last / FILE_NAME).is_file():
            return None
        _, header = read_header(run.last)
        if json.loads(header.get("provenance", "{}")).get("finished"):
            return None
    return f"{done} of {asked} epochs"


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
