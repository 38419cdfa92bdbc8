"""The batches Lightning asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from ct_attn.recipe import Recipe
from ct_attn.training.patches import PatchDataset


class Batches(LightningDataModule):
    """Training patches, made anew for every epoch, and whole validation cases.

    The Trainer must reload training data every epoch: the epoch decides the patches.
    """

    def __init__(self, recipe: Recipe, training: Sequence[Any], validation: Sequence[Any]) -> None:
        super().__init__()
        self.recipe = recipe
        self.training = training
        self.validation = validation

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        config = self.recipe.training
        patches = PatchDataset(
            self.training, config, n_classes=self.recipe.n_classes, epoch=self.trainer.current_epoch
        )
        return DataLoader(patches, batch_size=config.batch_size, num_workers=config.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.validation, batch_size=1)  # type: ignore[arg-type] # a sequence will do
