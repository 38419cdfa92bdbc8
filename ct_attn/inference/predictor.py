"""One trained model, loaded once, that predicts many scans."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ct_attn.checkpoint import Checkpoint, load_checkpoint
from ct_attn.device import channels_last, choose_device, choose_precision
from ct_attn.errors import UserError
from ct_attn.inference.options import DEFAULTS, InferenceOptions, Prediction
from ct_attn.inference.restore import restore_mask, restore_values
from ct_attn.inference.sliding_window import over_windows
from ct_attn.labels import LabelScheme
from ct_attn.losses import class_logits
from ct_attn.network.folding import folded
from ct_attn.network.slicewise import gates_of
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
        self.network = channels_last(folded(network).to(device))

    @classmethod
    def load(cls, model: Path, options: InferenceOptions = DEFAULTS) -> Predictor:
        """The model in the folder ``model``. Raises :class:`UserError` when it cannot be used."""
        checkpoint: Checkpoint = load_checkpoint(model)
        return cls(checkpoint.network(), checkpoint.recipe, choose_device(options.device))

    @property
    def scheme(self) -> LabelScheme:
        """What the codes of the masks mean."""
        return self.recipe.label_scheme

    def predict(self, volume: Volume, on_window: OnWindow = _silent) -> Mask:
        """The mask of ``volume``, on its own grid, in the codes of :attr:`scheme`."""
        return self.run(volume, on_window=on_window).mask

    def run(self, volume: Volume, *, on_window: OnWindow = _silent) -> Prediction:
        """The mask of ``volume`` with all that is known of how it came about."""
        started = time.perf_counter()
        prepared = prepare(volume, self.recipe.preprocessing)
        resampled = time.perf_counter()
        logits = self.logits(prepared, on_window)
        computed = time.perf_counter()
        mask = restore_mask(logits, prepared.grid, volume.grid)
        seconds = {
            "resampling": resampled - started,
            "network": computed - resampled,
            "restoring": time.perf_counter() - computed,
        }
        return Prediction(mask=mask, seconds=seconds)

    def logits(self, prepared: Prepared, on_window: OnWindow = _silent) -> Tensor:
        """Logits float32 [C, *prepared.grid.shape] on the working grid, background's first."""
        return class_logits(self._over_windows(self.network, prepared, on_window), self.recipe.loss)

    def attention(self, volume: Volume, on_window: OnWindow = _silent) -> dict[str, Volume]:
        """alpha of every gate, by name, on the grid of ``volume``: float32 in 0 to 1 for sigmoid gates.

        Level 1 is the finest gated one; overlapping windows are blended as logits are.
        Raises :class:`UserError` when the network has no gates.
        """
        gates = gates_of(self.network)
        if gates is None:
            raise UserError(
                self.recipe.name,
                expected="a network with attention gates",
                found=f"kind {self.recipe.network.kind}",
                remedy="give a model trained with kind attention_unet or resnet_attention_unet",
            )
        prepared = prepare(volume, self.recipe.preprocessing)
        names, stacked_attention = gates
        maps = self._over_windows(stacked_attention, prepared, on_window)
        alphas = restore_values(maps, prepared.grid, volume.grid)
        return {name: Volume(hu=alpha, grid=volume.grid) for name, alpha in zip(names, alphas, strict=True)}

    def _over_windows(
        self, network: Callable[[Tensor], Tensor], prepared: Prepared, on_window: OnWindow
    ) -> Tensor:
        """What ``network`` makes of every window, blended: float32 [C, *prepared.grid.shape]."""

        def predict(patch: Tensor) -> Tensor:
            patch = patch.contiguous(memory_format=torch.channels_last_3d)
            with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
                return network(patch)

        with torch.inference_mode():
            image = torch.from_numpy(prepared.image).to(self.device)
            return over_windows(predict, image, self.recipe, on_window)
