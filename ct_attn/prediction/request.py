"""What is asked of a prediction, beside the scans: one object that can be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ct_attn.errors import UserError
from ct_attn.inference.options import DEFAULTS, InferenceOptions
from ct_attn.labels import LabelScheme
from ct_attn.network.configs import GATED, without_gates
from ct_attn.prediction.filtering import OrganFilter, parse_filter
from ct_attn.prediction.models import ModelFacts, read_model
from ct_attn.prediction.postprocessing import common_filters
from ct_attn.prediction.record import settings_digest
from ct_attn.scan_io.options import AS_IT_IS, ReadingOptions

#: Say where and how fast, not what: a case done on one machine is done for another.
_WHERE = ("device", "backend", "memory_bytes", "compile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What is written beside masks. ``organs``: those in the mask; all where none is named.

    ``attention``: the gates' coefficients; ``features``: a picture of the skips before and
    after the gates.
    """

    organs: tuple[str, ...] = ()
    probabilities: bool = False
    attention: bool = False
    features: bool = False
    preview: bool = False
    statistics: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Model folders (several are averaged) and options.

    ``filter``: ``auto`` (what was learnt for the models), ``off``, or as
    :func:`~ct_attn.prediction.filtering.parse_filter` reads it.
    """

    models: tuple[Path, ...]
    inference: InferenceOptions = DEFAULTS
    reading: ReadingOptions = AS_IT_IS
    outputs: Outputs = field(default_factory=Outputs)
    filter: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A request checked against its models.

    ``scheme`` is of the masks: that of the models, less the organs that were not asked for.
    """

    request: Request
    models: tuple[ModelFacts, ...]
    scheme: LabelScheme
    filters: Mapping[str, OrganFilter]

    @property
    def model_digests(self) -> tuple[str, ...]:
        return tuple(model.used.digest for model in self.models)

    @property
    def uncalibrated(self) -> str | None:
        """Why nothing is known of what a confidence is worth; None where it is."""
        if len(self.models) > 1:
            return "confidence is uncalibrated: ct-attn calibrate learns of one model, not of a mean"
        if self.request.filter == "off":
            return "confidence is uncalibrated: --filter off leaves aside what ct-attn calibrate learns"
        if self.models[0].postprocessing is None:
            return (
                "confidence is uncalibrated: ct-attn calibrate -m MODEL --data MANIFEST says what it is worth"
            )
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what a mask holds, but for scan and models; plain JSON."""
        inference = {key: value for key, value in asdict(self.request.inference).items() if key not in _WHERE}
        reading = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self.request.reading).items()
            if key != "max_voxels"
        }
        filters = {organ: one.describe() for organ, one in self.filters.items() if one.does_anything}
        return {
            "inference": inference,
            "reading": reading,
            "organs": list(self.scheme.names),
            "filter": filters,
        }

    @property
    def settings_digest(self) -> str:
        return settings_digest(self.settings)


def resolve(request: Request) -> Resolved:
    """``request`` with what its models say.

    Raises :class:`UserError` when a model can't be used, models predict different organs,
    an organ or filter names none of theirs, or gates are asked for that the first has not.
    """
    models = tuple(read_model(folder, postprocessing=request.filter != "off") for folder in request.models)
    scheme = models[0].scheme
    for model in models[1:]:
        if model.scheme != scheme:
            raise UserError(
                model.folder,
                expected=f"a model for {', '.join(scheme.names)}, as the first -m",
                found=f"one for {', '.join(model.scheme.names)}",
                remedy="average models of the same targets",
            )
    first, outputs = models[0].used.recipe, request.outputs
    if (outputs.attention or outputs.features) and models[0].network not in GATED:
        raise without_gates(first, models[0].network)
    if request.filter == "auto":
        filters = common_filters([model.postprocessing for model in models])
    else:
        filters = parse_filter(request.filter, scheme)
    return Resolved(
        request=request, models=models, scheme=_reduced(scheme, request.outputs.organs), filters=filters
    )


def _reduced(scheme: LabelScheme, organs: tuple[str, ...]) -> LabelScheme:
    """The structures of ``scheme`` that are asked for, with the codes they have."""
    unknown = sorted(set(organs) - set(scheme.names))
    if unknown:
        raise UserError(
            f"--organs {','.join(organs)}",
            expected=f"organs the model predicts ({', '.join(scheme.names)})",
            found=", ".join(unknown),
            remedy="name some of these",
        )
    if not organs:
        return scheme
    return LabelScheme(
        structures=tuple(structure for structure in scheme.structures if structure.name in organs)
    )
