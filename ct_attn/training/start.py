"""The weights a training starts from, where they are not all freshly drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ct_attn.checkpoint import load_checkpoint
from ct_attn.errors import UserError
from ct_attn.manifest import file_digest
from ct_attn.model_file import FILE_NAME
from ct_attn.network.configs import GuidedAttentionConfig, ResNetAttentionUNetConfig
from ct_attn.network.pretrained import load_pretrained, read_weights
from ct_attn.network.resnet import ResNetEncoder
from ct_attn.network.segmenter import Segmenter
from ct_attn.network.slicewise import core_of
from ct_attn.network.transfer import init_from
from ct_attn.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where the first weights come from; by default they are all drawn.

    ``model``: a trained model of which every tensor that fits is taken, or with
    ``parts`` those of the parts named. ``encoder``: a weight file for a ResNet encoder.
    """

    model: Path | None = None
    parts: tuple[str, ...] = ()
    encoder: Path | None = None

    def digests(self) -> dict[str, str]:
        """What the record of the run says of it. Raises :class:`UserError` for a missing file."""
        record = {}
        if self.model is not None:
            file = self.model / FILE_NAME if self.model.is_dir() else self.model
            record["init_from"] = " ".join([_digest(file), *self.parts])
        if self.encoder is not None:
            record["pretrained_encoder"] = _digest(self.encoder)
        return record


def take_weights(network: Segmenter, recipe: Recipe, start: Start) -> list[str]:
    """Copy into ``network`` (of ``recipe``) what ``start`` names; a line on each for people.

    Raises :class:`UserError` when a file cannot be used for this network.
    """
    said = []
    network = core_of(network)
    if start.model is not None:
        said.append(f"weights from {start.model}: {_take_model(network, recipe, start.model, start.parts)}")
    if start.encoder is not None:
        said.append(f"encoder from {start.encoder}: {_take_encoder(network, recipe, start.encoder)}")
    return said


def _take_model(network: Segmenter, recipe: Recipe, model: Path, parts: tuple[str, ...]) -> str:
    source = load_checkpoint(model)
    prefix = "network." if source.recipe.slices else ""  # of what is applied to slices
    weights = {name.removeprefix(prefix): tensor for name, tensor in source.weights.items()}
    same_classes = list(source.recipe.targets.items()) == list(recipe.targets.items())
    try:
        report = init_from(
            network, weights, only=parts or None, fresh=() if same_classes else network.class_parts
        )
    except ValueError as error:
        raise UserError(
            model,
            expected=f"weights for {recipe.network.kind}",
            found=str(error),
            remedy="give another model, or other parts",
        ) from error
    return report.summary()


def _take_encoder(network: Segmenter, recipe: Recipe, file: Path) -> str:
    encoder = next((part for part in network.children() if isinstance(part, ResNetEncoder)), None)
    if encoder is None:
        raise UserError(
            recipe.name,
            expected="a network with a ResNet encoder, for --pretrained-encoder",
            found=f"kind {recipe.network.kind}",
            remedy="take a recipe with kind resnet_attention_unet or guided_attention",
        )
    try:
        report = load_pretrained(encoder, read_weights(file))
    except ValueError as error:
        raise UserError(
            file,
            expected=f"weights for the encoder of {recipe.network.kind}",
            found=str(error),
            remedy="give another file, or mend the recipe (network.depth, slices.neighbours)",
        ) from error
    unused = f"; not used: {', '.join(report.unused)}" if report.unused else ""
    assert isinstance(recipe.network, ResNetAttentionUNetConfig | GuidedAttentionConfig)
    seen = recipe.network.normalisation
    hint = " (weights of photographs know images normalised as imagenet)"
    hint *= recipe.network.dims == 2 and seen == "none"
    return f"{len(report.loaded)} tensors loaded{unused}; network.normalisation: {seen}{hint}"


def _digest(file: Path) -> str:
    try:
        return file_digest(file)
    except OSError as error:
        raise UserError(
            file, expected="weights", found=error.strerror or "none", remedy="check the path"
        ) from error
