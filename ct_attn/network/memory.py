"""How much memory a training step needs, counted on a small patch."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ct_attn.network.segmenter import Segmenter

#: Gradients of activations that live beside the activations themselves, and what
#: convolutions work in, as benchmarks/networks.py measures them.
WORKSPACE = 1.4
#: A weight, its gradient and Adam's two moments, in float32.
BYTES_PER_PARAMETER = 16


def activation_bytes_per_voxel(network: Segmenter, *, dtype: torch.dtype, in_channels: int = 1) -> float:
    """What ``network`` keeps for its gradients, per voxel of a batch of patches.

    Counted by running it in training mode under autocast to ``dtype`` on two patches of
    twice the least size; tensors that share memory count once. The network's weights
    stay as they are, its batch statistics move.
    """
    size = tuple(2 * step for step in network.size_multiple)
    image = torch.zeros(2, in_channels, *size)
    weights = {parameter.shape for parameter in network.parameters()}  # autocast copies them
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.shape not in weights:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        supervised = network.supervised(image)
    held = sum(kept.values())  # the graph, and with it every tensor noted, lives until here
    del supervised
    return held / (2 * prod(size))


def training_bytes(network: Segmenter, *, bytes_per_voxel: float, n_voxels: int) -> float:
    """The memory of a training step on a batch of ``n_voxels`` in all, with an optimizer like Adam.

    Not for networks with ``checkpointing``, whose peak lies where a level is computed again.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    return BYTES_PER_PARAMETER * weights + WORKSPACE * bytes_per_voxel * n_voxels
