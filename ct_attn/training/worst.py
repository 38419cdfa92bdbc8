"""The validation cases of the last validation, the worst of them as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ct_attn.recipe import Recipe
from ct_attn.report.figures import case_picture
from ct_attn.training.module import WORST_CASES, SegmentationModule
from ct_attn.training.validation import ValidatedCase, gathered, worst_first
from ct_attn.volume import Grid, Mask, Volume


class KeepWorst(Callback):
    """Keeps the scores of the last validation, worst case first, and pictures of the first few.

    ``cases``: ``case_id``, and ``state``, ``dsc`` and ``s2s_mm`` per target. ``pictures``: case id ->
    the bytes of a PNG, uint8. ``validation`` are the prepared cases by number.
    """

    def __init__(self, recipe: Recipe, validation: Sequence[Mapping[str, Any]]) -> None:
        self.recipe = recipe
        self.validation = validation
        self.cases: list[dict[str, Any]] = []
        self.pictures: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        worst = worst_first(pl_module.validated)
        self.cases = [
            {
                "case_id": case.case_id,
                "state": [state.value for state in case.scores.state],
                "dsc": list(case.scores.dsc),
                "s2s_mm": list(case.scores.s2s_mm),
            }
            for case in worst
        ]
        shown = [case.number for case in worst[:WORST_CASES]]
        drawn: dict[int, Tensor] = {}
        for of_process in gathered({c.number: self._draw(c) for c in pl_module.worst if c.number in shown}):
            drawn |= of_process
        self.pictures = {case.case_id: drawn[case.number] for case in worst[:WORST_CASES]}

    def _draw(self, case: ValidatedCase) -> Tensor:
        """A picture on the working grid, with the HU of the recipe's window."""
        assert case.labels is not None
        prepared = self.validation[case.number]
        low, high = self.recipe.preprocessing.hu_window
        hu = prepared["image"][0].float().numpy() * (high - low) + low
        grid = Grid(shape=hu.shape, affine=np.diag([*prepared["spacing_mm"].tolist(), 1.0]))
        png = case_picture(
            Volume(hu=hu, grid=grid),
            Mask(labels=prepared["label"][0].numpy(), grid=grid),
            Mask(labels=case.labels.numpy(), grid=grid),
            scheme=self.recipe.label_scheme,
        )
        return torch.frombuffer(bytearray(png), dtype=torch.uint8)

    def state_dict(self) -> dict[str, Any]:
        return {"cases": self.cases, "pictures": self.pictures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A state of an earlier version has no word for what has no number: the next validation does.
        self.cases = [case for case in state_dict["cases"] if "state" in case]
        self.pictures = state_dict["pictures"]
