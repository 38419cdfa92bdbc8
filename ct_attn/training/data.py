"""The batches Lightning asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from ct_attn.recipe import Recipe
from ct_attn.training.cache import CachedCase
from ct_attn.training.patches import PatchDataset
from ct_attn.training.validation import share_of


class WholeCases(Sequence[dict[str, Any]]):
    """Prepared cases as a whole, each read from the cache when it is asked for.

    An item holds ``number``, ``case_id``, ``image`` float16 and ``label`` uint8 [1, I, J, K],
    ``known`` bool [C] and ``spacing_mm`` float64 [3].
    """

    def __init__(self, cases: Sequence[CachedCase]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: Any) -> Any:
        case = self.cases[index]
        mapped = case.open()
        return {
            "number": index,
            "case_id": case.case_id,
            "image": mapped.image[None],
            "label": mapped.label[None],
            "known": torch.tensor(case.known),
            "spacing_mm": torch.tensor(mapped.spacing_mm, dtype=torch.float64),
        }


class Batches(LightningDataModule):
    """Training patches, made anew for every epoch, and whole validation cases: this process's share.

    The Trainer must reload training data every epoch: the epoch decides the patches.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Sequence[CachedCase],
        validation: Sequence[CachedCase],
        *,
        rank: int = 0,
        n_processes: int = 1,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.training = training
        self.validation = WholeCases(validation)
        self.rank = rank
        self.n_processes = n_processes

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        config = self.recipe.training
        patches = PatchDataset(
            self.training,
            self.recipe,
            epoch=self.trainer.current_epoch,
            rank=self.rank,
            n_processes=self.n_processes,
        )
        return DataLoader(patches, batch_size=config.batch_size, num_workers=config.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        share = share_of(len(self.validation), rank=self.rank, n_processes=self.n_processes)
        return DataLoader(self.validation, batch_size=1, sampler=share)  # type: ignore[arg-type] # a sequence will do
