"""The file a trained model is kept in, as far as it can be read without torch.

``model.safetensors`` holds the weights; its header holds the recipe (network,
preprocessing, targets, inference), where it was trained, and a digest of it all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from ct_attn.errors import UserError
from ct_attn.recipe import Recipe

FILE_NAME = "model.safetensors"
FORMAT = "ct_attn model 1"

#: What torch calls the number formats of safetensors; digests are made of these names.
_TYPES = {
    "F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16",
    "I64": "torch.int64", "I32": "torch.int32", "I16": "torch.int16", "I8": "torch.int8",
    "U8": "torch.uint8", "BOOL": "torch.bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """What the model in the file ``path`` is, weights apart; ``provenance``: from which data and step."""

    path: Path
    digest: str
    recipe: Recipe
    provenance: Mapping[str, str | int | float]


def read_model_file(path: Path) -> ModelFile:
    """The model in ``path`` (the folder or the file in it).

    Raises :class:`UserError` when it is missing, not written by this package, or
    changed since it was saved.
    """
    file, header = read_header(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise damaged(file, error) from error
    return _from_header(header, content, file)


def read_header(path: Path) -> tuple[Path, dict[str, str]]:
    """The file of the model in ``path`` and its header; the weights are not looked at.

    Raises :class:`UserError` when it is missing or no whole safetensors file.
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
        with safe_open(file, framework="numpy") as opened:  # checks that sizes and offsets fit
            return file, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> UserError:
    """What is said of a model file that cannot be read."""
    return UserError(
        file, expected="a whole model file", found=f"a damaged one ({error})", remedy="copy it again"
    )


#: Name, shape, torch's type and bytes.
StoredTensor = tuple[str, tuple[int, ...], str, bytes | memoryview]


def digest_of(tensors: Iterable[StoredTensor], header: Mapping[str, str]) -> str:
    """``sha256:`` over all tensors (name, shape, type, bytes), by name, and the header's other entries.

    safetensors orders its header by chance, so the digest of the file itself differs
    from one saving to the next; this one does not.
    """
    digest = hashlib.sha256()
    for entry in sorted(header):
        if entry != "digest":
            digest.update(f"{entry}={header[entry]}\n".encode())
    for name, shape, dtype, content in sorted(tensors, key=lambda tensor: tensor[0]):
        digest.update(f"{name} {shape} {dtype}".encode())
        digest.update(content)
    return f"sha256:{digest.hexdigest()}"


def _from_header(header: Mapping[str, str], content: bytes, file: Path) -> ModelFile:
    if header.get("format") != FORMAT:
        raise UserError(
            file,
            expected=f"a file in the format {FORMAT!r}",
            found=repr(header.get("format", "no format")),
            remedy="give a model this version of ct_attn trained",
        )
    digest = digest_of(_tensors(content), header)
    if header.get("digest") != digest:
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
    provenance = json.loads(header.get("provenance", "{}"))
    return ModelFile(path=file, digest=digest, recipe=recipe, provenance=provenance)


def _tensors(content: bytes) -> Iterable[StoredTensor]:
    """Name, shape, torch's type and bytes of every tensor in a safetensors file."""
    begin = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            shape, dtype = tuple(entry["shape"]), _TYPES.get(entry["dtype"], entry["dtype"])
            yield name, shape, dtype, memoryview(content)[begin + first : begin + last]
