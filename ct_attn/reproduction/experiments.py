"""What the paper trained and tested, each with the recipe that does it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

from ct_attn.errors import UserError

#: What each method of the paper is called in the names of recipes.
METHODS = {
    "unet": "U-Net",
    "attention_unet": "Attention U-Net",
    "unet_6m44": "U-Net 6.44 M",
    "unet_10m4": "U-Net 10.40 M",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A network, how it was trained, and on what; ``name`` is also that of its recipe.

    ``method``, ``stage``, ``data_set`` and ``train_test`` are as in the published figures.
    ``model_of``: nothing is trained, that experiment's model is tested. ``starts_from``:
    training starts from that experiment's weights. ``on_source``: trained and tested on
    the source cohort; otherwise on the target.
    """

    name: str
    table: str
    method: str
    stage: str
    data_set: str
    train_test: str
    on_source: bool
    model_of: str | None = None
    starts_from: str | None = None

    @property
    def earlier(self) -> str | None:
        """The experiment whose model this one needs."""
        return self.model_of or self.starts_from

    @property
    def needs_source(self) -> bool:
        return self.on_source or self.earlier is not None


def _on_source(kind: str, train_test: str) -> Experiment:
    return Experiment(
        name=f"ct150_{train_test.replace('/', '_')}_{kind}",
        table="higher-capacity" if kind.startswith("unet_") else "multi-class",
        method=METHODS[kind],
        stage="",
        data_set="CT-150",
        train_test=train_test,
        on_source=True,
    )


def _on_target(kind: str, stage: str) -> Experiment:
    source = f"ct150_120_30_{kind}"
    return Experiment(
        name=f"ct82_{stage.lower()}_{kind}",
        table="pancreas-ct",
        method=METHODS[kind],
        stage=stage,
        data_set="CT-82",
        train_test="61/21",
        on_source=False,
        model_of=source if stage == "BFT" else None,
        starts_from=source if stage == "AFT" else None,
    )


#: In the order of the paper's tables; what an experiment needs stands before it.
EXPERIMENTS = (
    *(_on_source(kind, split) for split in ("120/30", "30/120") for kind in ("unet", "attention_unet")),
    *(_on_source(kind, "120/30") for kind in ("unet_6m44", "unet_10m4")),
    *(_on_target(kind, stage) for stage in ("BFT", "AFT", "SCR") for kind in ("unet", "attention_unet")),
)


def paper_recipes(package: Path | None = None) -> Path:
    """The folder of the recipes by the experiments' names: the package's own, or a checkout's.

    ``package``: where ct_attn is installed, unless it is the one that runs.
    """
    package = package or Path(str(files("ct_attn")))
    shipped = package / "paper_recipes"  # put there by setup.py
    return shipped if shipped.is_dir() else package.parent / "pipelines" / "paper"


def choose(patterns: Sequence[str]) -> tuple[Experiment, ...]:
    """The experiments whose names match one of ``patterns`` (``ct82_*``); all where there is none.

    Raises :class:`UserError` for a pattern that no name matches.
    """
    names = [experiment.name for experiment in EXPERIMENTS]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"--only {pattern}", expected=f"one of {', '.join(names)}, or a pattern such as ct82_*",
                found="neither", remedy="mend the option",
            )  # fmt: skip
    return tuple(
        experiment
        for experiment in EXPERIMENTS
        if not patterns or any(fnmatchcase(experiment.name, pattern) for pattern in patterns)
    )


def trainings_for(experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """What has to be trained for ``experiments``, what others need first."""
    wanted = {experiment.model_of or experiment.name for experiment in experiments}
    wanted |= {experiment.starts_from for experiment in experiments if experiment.starts_from}
    return tuple(experiment for experiment in EXPERIMENTS if experiment.name in wanted)
