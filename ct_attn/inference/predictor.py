"""One trained model, loaded once, that predicts many scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ct_attn.checkpoint import Checkpoint, load_checkpoint
from ct_attn.device import channels_last, choose_device, choose_precision
from ct_attn.inference.restore import restore_mask
from ct_attn.inference.sliding_window import sliding_window_logits
from ct_attn.labels import LabelScheme
from ct_attn.preprocessing import Prepared, prepare
from ct_attn.recipe import Recipe
from ct_attn.volume import Mask, Volume

OnWindow = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Hear of progress and say nothing."""


class Predictor:
    """Segments scans with a trained network.

    >>> predictor = Predictor.load(Path("RUN/model"))  # doctest: +SKIP
    >>> mask = predictor.predict(read_scan(Path("scan.nii.gz")))  # doctest: +SKIP
    >>> mask.labels == predictor.scheme.codes["pancreas"]  # doctest: +SKIP
    """

    def __init__(self, network: torch.nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.precision = choose_precision(recipe.inference.precision, device)
        self.network = channels_last(network.to(device))

    @classmethod
    def load(cls, model: Path, *, device: str = "auto") -> Predictor:
        """The model in the folder ``model``. Raises :class:`UserError` when it cannot be used."""
        checkpoint: Checkpoint = load_checkpoint(model)
        return cls(checkpoint.network(), checkpoint.recipe, choose_device(device))

    @property
    def scheme(self) -> LabelScheme:
        """What the codes of the masks mean."""
        return self.recipe.label_scheme

    def predict(self, volume: Volume, on_window: OnWindow = _silent) -> Mask:
        """The mask of ``volume``, on its own grid, in the codes of :attr:`scheme`."""
        prepared = prepare(volume, self.recipe.preprocessing)
        return restore_mask(self.logits(prepared, on_window), prepared.grid, volume.grid)

    def logits(self, prepared: Prepared, on_window: OnWindow = _silent) -> Tensor:
        """Logits float32 [C, *prepared.grid.shape] on the working grid."""
        with torch.inference_mode():
            return sliding_window_logits(
                self._predict_patch,
                torch.from_numpy(prepared.image).to(self.device),
                patch_size=self.recipe.training.patch_size,
                overlap=self.recipe.inference.overlap,
                on_window=on_window,
            )

    def _predict_patch(self, patch: Tensor) -> Tensor:
        patch = patch.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits: Tensor = self.network(patch)
        return logits
