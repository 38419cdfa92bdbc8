"""Weights of a ResNet from elsewhere into a :class:`ResNetEncoder`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ct_attn.errors import UserError
from ct_attn.network.resnet import ResNetEncoder
from ct_attn.network.transfer import TransferReport, init_from

_STEM = "conv1.weight"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a ``.safetensors`` file, or in one of torch's, of which no code is run.

    A ``state_dict`` inside, and ``module.`` before every name, are taken off. Raises
    :class:`UserError` when the file is missing or holds anything else.
    """
    expected = "weights: a .safetensors file, or a dictionary of tensors saved by torch"
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            path, expected=expected, found=error.strerror or str(error), remedy="check the path"
        ) from error
    except SafetensorError as error:
        raise UserError(path, expected=expected, found=str(error), remedy="give another file") from error
    except Exception as error:  # torch's unpickler trips over foreign bytes in many ways
        raise UserError(
            path,
            expected=expected,
            found="another format, or objects that only running code from the file would read",
            remedy="save the network's state_dict(), or give another file",
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(entry, Tensor) for entry in content.values()):
        raise UserError(path, expected=expected, found=type(content).__name__, remedy="give another file")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def load_pretrained(encoder: ResNetEncoder, weights: Mapping[str, Tensor]) -> TransferReport:
    """Copy ``weights``, in torchvision's naming, into ``encoder``; all of it must find weights.

    Where the file's first convolution takes three channels (colour) and the encoder's
    one, the three are summed: a grey image then gives what it gave as three equal ones.
    Raises :class:`ValueError` naming a tensor that is missing or of another shape.
    """
    own = encoder.model.state_dict()
    fitted = dict(weights)
    if _STEM in fitted and own[_STEM].shape[1] == 1 and fitted[_STEM].shape[1:2] == (3,):
        fitted[_STEM] = fitted[_STEM].sum(dim=1, keepdim=True)
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue  # files older than the counter lack it
        if name not in fitted:
            raise ValueError(f"it has no {name}; the network's encoder is a ResNet of another depth or kind")
        if fitted[name].shape != tensor.shape:
            what = f"{name} is {tuple(fitted[name].shape)}, the encoder's {tuple(tensor.shape)}"
            hint = ": three channels are summed for 1, or kept for 3 (slices.neighbours)"
            raise ValueError(what + hint * (name == _STEM))
    return init_from(encoder.model, fitted)
