"""What a model says of itself, read from its header alone: no weights, no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ct_attn.labels import LabelScheme
from ct_attn.model_file import damaged, read_header
from ct_attn.prediction.postprocessing import Postprocessing, read_postprocessing
from ct_attn.prediction.record import ModelUsed


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model folder: its digest and recipe, what its codes mean, what was learnt for it afterwards.

    ``network`` is the kind its recipe names.

    ``fold`` was held out of its training on the manifest of ``manifest_digest``; None where
    it doesn't say.
    """

    folder: Path
    used: ModelUsed
    scheme: LabelScheme
    network: str
    postprocessing: Postprocessing | None
    fold: int | None = None
    manifest_digest: str | None = None


def read_model(folder: Path, *, postprocessing: bool = True) -> ModelFacts:
    """The facts of the model in ``folder``.

    Raises :class:`UserError` when there is none, or with ``postprocessing`` when what lies
    beside it was learnt for another model. The weights are not looked at: loading does.
    """
    file, header = read_header(folder)
    try:
        recipe, provenance = json.loads(header["recipe"]), json.loads(header.get("provenance", "{}"))
        scheme = LabelScheme.from_targets(recipe["targets"])
        network = str(recipe["network"]["kind"])
        used = ModelUsed(
            digest=header["digest"],
            recipe=recipe["name"],
            recipe_digest=f"sha256:{hashlib.sha256(header['recipe'].encode()).hexdigest()}",
        )
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(file, error) from error
    learnt = read_postprocessing(file.parent, used.digest) if postprocessing else None
    return ModelFacts(
        folder=file.parent,
        used=used,
        scheme=scheme,
        network=network,
        postprocessing=learnt,
        fold=provenance.get("fold"),
        manifest_digest=provenance.get("manifest_digest"),
    )
