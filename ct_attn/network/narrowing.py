"""Fewer classes out of a trained U-Net, without a change to what it says of those that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def keep_classes(weights: Mapping[str, Tensor], classes: Sequence[int]) -> dict[str, Tensor]:
    """``weights`` of a U-Net or Attention U-Net for a network that predicts ``classes`` only.

    The logits of the classes that stay are exactly those of the whole network; the others
    are out of the softmax. With fused deep supervision the fusion mixes the class maps of
    all scales and classes by 1x1x1 convolutions, which commute with linear resampling: so
    each head takes over its part of the fusion, F_s H_s, and the fusion only adds up.

    ``classes`` are indices of logits, background 0 among them, in the order they get.
    Raises ``ValueError`` where the weights have no class maps to narrow.
    """
    heads = sorted({name.split(".")[1] for name in weights if name.startswith("heads.")}, key=int)
    if not heads:
        raise ValueError("no class maps (heads) in the weights")
    kept = list(classes)
    narrowed = {
        name: tensor for name, tensor in weights.items() if name.split(".")[0] not in ("heads", "fuse")
    }
    fusion = weights.get("fuse.weight")
    n_classes = len(weights[f"heads.{heads[0]}.bias"])
    for scale, head in enumerate(heads):
        weight, bias = weights[f"heads.{head}.weight"], weights[f"heads.{head}.bias"]
        if fusion is None:
            mixing = torch.eye(n_classes, dtype=weight.dtype)
        else:
            mixing = fusion.flatten(1)[:, scale * n_classes : (scale + 1) * n_classes]
        narrowed[f"heads.{head}.weight"] = (mixing @ weight.flatten(1)).reshape(weight.shape)[kept]
        narrowed[f"heads.{head}.bias"] = (mixing @ bias)[kept]
    if fusion is not None:
        adding = torch.eye(len(kept), dtype=fusion.dtype).repeat(1, len(heads))
        narrowed["fuse.weight"] = adding.reshape(*adding.shape, *fusion.shape[2:])
        narrowed["fuse.bias"] = weights["fuse.bias"][kept]
    return narrowed
