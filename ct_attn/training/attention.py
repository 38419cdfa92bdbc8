"""What the gates let through on one fixed slice, kept as the training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ct_attn.inference.sliding_window import over_windows
from ct_attn.network.slicewise import gates_of
from ct_attn.recipe import Recipe


class KeepAttention(Callback):
    """Keeps alpha of every gate on one axial slice of ``case``, prepared, after chosen epochs.

    The slice is the one with most labelled voxels. ``maps`` is epoch (counted from 1) ->
    name of the gate -> [I, J], float32; it is part of the saved state.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, case: Mapping[Any, Any]) -> None:
        gates = gates_of(network)
        assert gates is not None
        self.network = network
        self.gate_names, self.stacked_attention = gates
        self.recipe = recipe
        self.case_id = str(case["case_id"])
        neighbours = recipe.slices.neighbours if recipe.slices else 1
        image, label = (torch.as_tensor(case[key])[0] for key in ("image", "label"))
        self.slab, self.position = _slab_around(label, max(recipe.training.patch_size[2], neighbours))
        self.image = image[..., self.slab].float().contiguous()
        self.label = label[..., self.slab][..., self.position].to(torch.uint8, copy=True)
        self.maps: dict[int, dict[str, Tensor]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch in self.recipe.training.attention_epochs or epoch == trainer.max_epochs:
            with trainer.precision_plugin.forward_context():
                self.maps[epoch] = self._now(pl_module.device)

    def _now(self, device: torch.device) -> dict[str, Tensor]:
        """alpha of every gate on the slice as the network is now."""
        was_training = self.network.training
        self.network.eval()
        with torch.no_grad():
            maps = over_windows(
                self.stacked_attention, self.image.to(device), self.recipe, n_values=len(self.gate_names)
            )
        self.network.train(was_training)
        # Copies: a view would take the whole slab along into the saved state.
        on_slice = (alpha[..., self.position].cpu().clone() for alpha in maps)
        return dict(zip(self.gate_names, on_slice, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"maps": self.maps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.maps = state_dict["maps"]


def keep_attention(
    network: nn.Module, recipe: Recipe, validation: Sequence[Mapping[Any, Any]]
) -> KeepAttention | None:
    """The callback for the first validation case; None for a network without gates."""
    return KeepAttention(network, recipe, validation[0]) if gates_of(network) else None


def _slab_around(label: Tensor, thickness: int) -> tuple[slice, int]:
    """Up to ``thickness`` slices around the fullest one of ``label`` [I, J, K]; where in them it lies."""
    fullest = int((label > 0).sum(dim=(0, 1)).argmax())
    start = max(0, min(fullest - thickness // 2, label.shape[2] - thickness))
    return slice(start, start + thickness), fullest - start
