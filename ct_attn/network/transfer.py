"""Weights of one network into another, and parts of a network that do not train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ct_attn.network.segmenter import Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """What became of every tensor, by its name in the network or the weights.

    ``loaded``: taken from the weights. ``reinitialised``: in both, but of another shape
    or meaning (as the heads where the classes differ), so freshly drawn. ``missing``: not in the
    weights (as the gates are not in a U-Net's), so freshly drawn. ``unused``: in the
    weights only, or not asked for.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """One line for people."""
        line = f"{len(self.loaded)} tensors loaded, {len(self.missing)} not in the weights"
        if self.reinitialised:
            line += f", drawn afresh as their shape or meaning differs: {', '.join(self.reinitialised)}"
        if self.unused:
            line += f", {len(self.unused)} of the weights not used"
        return line


def init_from(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    only: Sequence[str] | None = None,
    fresh: Sequence[str] = (),
) -> TransferReport:
    """Copy into ``network`` what ``weights`` has under the same name and in the same shape.

    Networks here name their parts alike, so all of a U-Net finds its place in an
    Attention U-Net. ``only``: the parts to take, such as ``encoder`` or ``encoder.0``;
    ``fresh``: parts to leave as they were drawn even so, such as the heads of other classes.
    Raises :class:`ValueError` when nothing could be taken.
    """
    own = network.state_dict()
    wanted = {name for name in weights if only is None or _belongs(name, only)}
    loaded = {
        name
        for name in wanted & own.keys()
        if own[name].shape == weights[name].shape and not _belongs(name, fresh)
    }
    if not loaded:
        raise ValueError(
            f"none of the {len(weights)} tensors fits the network"
            + (f" under {', '.join(only)}" if only is not None else "")
        )
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(weights[name])
    return TransferReport(
        loaded=_ordered(own, loaded),
        reinitialised=_ordered(own, (wanted & own.keys()) - loaded),
        missing=_ordered(own, own.keys() - wanted),
        unused=_ordered(weights, weights.keys() - (wanted & own.keys())),
    )


def freeze(network: Segmenter, module_names: Sequence[str]) -> None:
    """Keep the parts ``module_names`` (such as ``encoder`` or ``decoder.2``) as they are, from now on.

    Their parameters ask for no gradient, and they stay in evaluation mode when the
    network trains: batch normalisation uses and keeps the statistics it has. Everything
    else trains; an empty sequence lets all train again. Raises :class:`ValueError` for
    a part that the network does not have.
    """
    require_parts(network, module_names)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not _belongs(name, module_names))
    network.frozen = tuple(module_names)
    network.train(network.training)


def all_but(network: Segmenter, module_names: Sequence[str]) -> list[str]:
    """The top-level parts of ``network`` that are not among ``module_names``, to be frozen.

    What is left of ``("gates", "gating")`` is the first stage of training gates first,
    then all. Raises :class:`ValueError` for what is no top-level part of the network.
    """
    parts = [name for name, _ in network.named_children()]
    unknown = [name for name in module_names if name not in parts]
    if unknown:
        raise ValueError(f"the network has no top-level part {unknown[0]!r}; it has {', '.join(parts)}")
    return [name for name in parts if name not in module_names]


def require_parts(network: Segmenter, module_names: Sequence[str]) -> None:
    """Raise :class:`ValueError` for a part that ``network`` does not have."""
    known = {name for name, _ in network.named_modules() if name}
    for name in module_names:
        if name not in known:
            parts = ", ".join(child for child, _ in network.named_children())
            raise ValueError(f"the network has no part {name!r}; it has {parts} and what is in them")


def _belongs(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _ordered(names: Iterable[str], chosen: Iterable[str]) -> tuple[str, ...]:
    chosen = set(chosen)
    return tuple(name for name in names if name in chosen)
