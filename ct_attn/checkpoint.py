"""A trained model as one file that carries everything prediction needs, and no pickle.

``model.safetensors`` holds the weights; its header holds the recipe (network,
preprocessing, targets, inference), where it was trained, and a digest of it all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ct_attn import __version__
from ct_attn.atomic import replacing
from ct_attn.errors import UserError
from ct_attn.network.build import build_network
from ct_attn.network.segmenter import Segmenter
from ct_attn.recipe import Recipe

FILE_NAME = "model.safetensors"
_FORMAT = "ct_attn model 1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A trained network with its recipe; ``provenance`` says from which data and step."""

    weights: Mapping[str, torch.Tensor]
    recipe: Recipe
    provenance: Mapping[str, str | int | float]

    def network(self) -> Segmenter:
        """The network with these weights, ready to predict (evaluation mode)."""
        recipe = self.recipe
        network = build_network(
            recipe.network, in_channels=1, n_classes=recipe.n_outputs, slices=recipe.slices
        )
        network.load_state_dict(dict(self.weights))
        return network.eval()


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write the model into ``folder``, whole or not at all, and return the file's path."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    header = {
        "format": _FORMAT,
        "version": __version__,
        "recipe": checkpoint.recipe.model_dump_json(),
        "provenance": json.dumps(dict(checkpoint.provenance)),
    }
    header["digest"] = model_digest(weights, header)
    target = folder / FILE_NAME
    with replacing(target) as partial:
        save_file(weights, partial, metadata=header)
    return target


def load_checkpoint(path: Path) -> Checkpoint:
    """The model in ``path`` (the folder or the file in it).

    Raises :class:`UserError` when it is missing, not written by this package, or
    changed since it was saved.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            file,
            expected="a trained model",
            found="no such file",
            remedy="give the model folder of a training run",
        )
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 # no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(
            file, expected="a whole model file", found=f"a damaged one ({error})", remedy="copy it again"
        ) from error
    return _from_header(header, weights, file)


def model_digest(weights: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> str:
    """``sha256:`` over all tensors (name, shape, type, bytes) and the header's other entries.

    safetensors orders its header by chance, so the digest of the file itself differs
    from one saving to the next; this one does not.
    """
    digest = hashlib.sha256()
    for entry in sorted(header):
        if entry != "digest":
            digest.update(f"{entry}={header[entry]}\n".encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _from_header(header: Mapping[str, str], weights: dict[str, torch.Tensor], file: Path) -> Checkpoint:
    if header.get("format") != _FORMAT:
        raise UserError(
            file,
            expected=f"a file in the format {_FORMAT!r}",
            found=repr(header.get("format", "no format")),
            remedy="give a model this version of ct_attn trained",
        )
    if header.get("digest") != model_digest(weights, header):
        raise UserError(
            file,
            expected="the weights and header that were saved",
            found="others (the digest differs)",
            remedy="copy the model again",
        )
    try:
        recipe = Recipe.model_validate_json(header["recipe"])
    except (ValidationError, KeyError) as error:
        raise UserError(
            file,
            expected="a recipe in the header",
            found=str(error).splitlines()[0],
            remedy="copy the model again",
        ) from error
    return Checkpoint(weights=weights, recipe=recipe, provenance=json.loads(header.get("provenance", "{}")))
