"""A trained model as one file that carries everything prediction needs, and no pickle.

What the file is like, and how it is read without torch: :mod:`ct_attn.model_file`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ct_attn import __version__
from ct_attn.atomic import replacing
from ct_attn.errors import UserError
from ct_attn.model_file import FILE_NAME, FORMAT, digest_of, read_header, read_model_file
from ct_attn.network.build import build_network
from ct_attn.network.segmenter import Segmenter
from ct_attn.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A trained network with its recipe; ``provenance`` says from which data and step."""

    weights: Mapping[str, torch.Tensor]
    recipe: Recipe
    provenance: Mapping[str, str | int | float]

    @property
    def header(self) -> dict[str, str]:
        """What the file says of the weights, in its order."""
        return {
            "format": FORMAT,
            "version": __version__,
            "recipe": self.recipe.model_dump_json(),
            "provenance": json.dumps(dict(self.provenance)),
        }

    @property
    def digest(self) -> str:
        """:func:`model_digest` of the file that :func:`save_checkpoint` writes."""
        return model_digest(_plain(self.weights), self.header)

    def network(self) -> Segmenter:
        """The network with these weights, ready to predict (evaluation mode)."""
        recipe = self.recipe
        network = build_network(
            recipe.network, in_channels=1, n_classes=recipe.n_outputs, slices=recipe.slices
        )
        network.load_state_dict(dict(self.weights))
        return network.eval()


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write the model into ``folder``, whole or not at all, and return the file's path.

    Raises :class:`UserError` when there is no room or no permission.
    """
    weights = _plain(checkpoint.weights)
    header = {**checkpoint.header, "digest": checkpoint.digest}
    target = folder / FILE_NAME
    try:
        with replacing(target) as partial:
            save_file(weights, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        raise UserError(
            target,
            expected="a disk that takes the model",
            found=getattr(error, "strerror", None) or str(error),
            remedy="make room; a training goes on with --resume",
        ) from error
    return target


def saved_digest(folder: Path) -> str | None:
    """The digest that the model in ``folder`` says it has; None where none can be read."""
    try:
        return read_header(folder / FILE_NAME)[1].get("digest")
    except UserError:
        return None


def load_checkpoint(path: Path) -> Checkpoint:
    """The model in ``path`` (the folder or the file in it).

    Raises :class:`UserError` when it is missing, not written by this package, or
    changed since it was saved.
    """
    model = read_model_file(path)
    return Checkpoint(weights=load_file(model.path), recipe=model.recipe, provenance=model.provenance)


def model_digest(weights: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> str:
    """The digest of :func:`ct_attn.model_file.digest_of` of a model in memory."""
    tensors = (
        (name, tuple(tensor.shape), str(tensor.dtype), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in weights.items()
    )
    return digest_of(tensors, header)


def _plain(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
