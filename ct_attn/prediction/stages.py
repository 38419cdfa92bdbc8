"""One scan from file to mask in three stages: read, compute, write. Only the second needs the network."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ct_attn import __version__, atomic
from ct_attn.errors import UserError
from ct_attn.inference.gates import GateViews, place_to_show
from ct_attn.inference.options import Prediction
from ct_attn.labels import LabelScheme
from ct_attn.manifest import file_digest
from ct_attn.prediction.cases import Case
from ct_attn.prediction.filtering import filter_mask
from ct_attn.prediction.gate_pictures import write_gate_picture
from ct_attn.prediction.postprocessing import common_ranges, expected_dsc
from ct_attn.prediction.ranges import scan_facts, unlike_training
from ct_attn.prediction.record import (
    FEATURES,
    MASK,
    PREVIEW,
    FailureRecord,
    InputFacts,
    PredictionRecord,
    input_facts,
    read_record,
    write_json,
)
from ct_attn.prediction.request import Resolved
from ct_attn.prediction.statistics import organ_statistics
from ct_attn.scan_io import nifti
from ct_attn.scan_io.options import ReadingOptions
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Mask, Volume

OnWindow = Callable[[int, int], None]

#: Probabilities are written in steps of this, which a compressed file holds in a third of the bytes.
PROBABILITY_STEP = 1 / 4096

_VERSIONS = ("torch", "monai", "numpy", "openvino")


class PredictsScans(Protocol):
    """What of :class:`~ct_attn.inference.predictor.Predictor` is needed here."""

    def run(self, volume: Volume, *, probabilities: bool = ..., on_window: OnWindow = ...) -> Prediction: ...

    def attention(self, volume: Volume) -> Mapping[str, Volume]: ...

    def features(self, volume: Volume, place_mm: NDArray[np.float64]) -> GateViews: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """A scan that was read, and what its file was then."""

    volume: Volume
    frame: nifti.NiftiFrame | None
    facts: InputFacts
    notes: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Computed:
    """The same with what the network says of it."""

    loaded: Loaded
    prediction: Prediction
    attention: Mapping[str, Volume] = field(default_factory=dict)
    features: GateViews | None = None
    seconds: dict[str, float]


def read(case: Case, options: ReadingOptions) -> Loaded:
    """Read a scan.

    Raises :class:`UserError` as :func:`~ct_attn.scan_io.scan.read_scan` does, and for a refused case.
    """
    if case.refusal is not None:
        raise case.refusal
    seconds: dict[str, float] = {}
    notes: list[str] = []
    with _timed(seconds, "reading"):
        volume = read_scan(case.scan.path, options, notes.append)
        frame = nifti.frame_of(case.scan.path, volume.grid)
    with _timed(seconds, "digest"):
        digest, size, modified_ns = input_facts(case.scan.path)
    facts = InputFacts(
        digest=digest,
        bytes=size,
        modified_ns=modified_ns,
        shape=volume.grid.shape,
        spacing_mm=volume.grid.spacing_mm,
        orientation=volume.grid.orientation,
    )
    return Loaded(volume=volume, frame=frame, facts=facts, notes=tuple(notes), seconds=seconds)


def compute(predictor: PredictsScans, loaded: Loaded, resolved: Resolved, on_window: OnWindow) -> Computed:
    """Ask the network."""
    outputs = resolved.request.outputs
    seconds: dict[str, float] = {}
    prediction = predictor.run(loaded.volume, probabilities=outputs.probabilities, on_window=on_window)
    attention: Mapping[str, Volume] = {}
    if outputs.attention:
        with _timed(seconds, "attention"):
            attention = predictor.attention(loaded.volume)
    features: GateViews | None = None
    if outputs.features:
        with _timed(seconds, "features"):
            place_mm = place_to_show(prediction.mask, resolved.scheme.codes.values())
            features = predictor.features(loaded.volume, place_mm)
    return Computed(
        loaded=loaded,
        prediction=prediction,
        attention=attention,
        features=features,
        seconds={**loaded.seconds, **prediction.seconds, **seconds},
    )


def write(case: Case, computed: Computed, resolved: Resolved) -> PredictionRecord:
    """Filter and measure the mask, write all that was asked for, and the record last."""
    files, outputs, volume = case.files, resolved.request.outputs, computed.loaded.volume
    seconds = dict(computed.seconds)
    confidence = _confidence(computed.prediction, resolved.scheme)
    with _timed(seconds, "filter"):
        mask = _only(computed.prediction.mask, resolved.scheme)
        mask, effects = filter_mask(mask, resolved.scheme, resolved.filters)
    statistics = None
    if outputs.statistics:
        with _timed(seconds, "statistics"):
            statistics = organ_statistics(volume, mask, resolved.scheme, confidence)
    earlier = read_record(files)
    with _marked(case):
        with _timed(seconds, "writing"):
            kinds = _write_volumes(case, computed, resolved)
            if outputs.preview:
                _write_preview(case, volume, mask, resolved.scheme)
                kinds.append(PREVIEW)
            if computed.features is not None:
                write_gate_picture(computed.features, mask, files.of_kind(FEATURES), scheme=resolved.scheme)
                kinds.append(FEATURES)
            nifti.write_mask(mask, files.mask, scheme=resolved.scheme, frame=computed.loaded.frame)
        models = [model.postprocessing for model in resolved.models]
        ranges = common_ranges(models)
        record = PredictionRecord(
            input=computed.loaded.facts,
            models=tuple(model.used for model in resolved.models),
            settings=resolved.settings,
            settings_digest=resolved.settings_digest,
            options=_options(resolved),
            labels=resolved.scheme.codes,
            outputs={kind: file_digest(files.of_kind(kind)) for kind in (MASK, *kinds)},
            seconds={stage: round(spent, 4) for stage, spent in seconds.items()},
            notes=tuple(
                without_path(note, case) for note in (*computed.loaded.notes, *computed.prediction.notes)
            ),
            warnings=tuple(unlike_training(scan_facts(volume), ranges)) if ranges else (),
            confidence=confidence,
            expected_dsc=expected_dsc(models, confidence),
            uncalibrated=resolved.uncalibrated,
            filtered=effects,
            statistics=statistics,
            versions=_versions(),
        )
        write_json(record, files.record)
        for kind in set(earlier.outputs if earlier else ()) - set(record.outputs):
            files.of_kind(kind).unlink(missing_ok=True)  # of an earlier run that asked for more
    return record


def write_failure(case: Case, error: Exception) -> str:
    """Write down why ``case`` failed, and say it in a line. A disk that takes no more is passed over."""
    cause = describe(error)
    with suppress(OSError):  # the line below tells it all the same
        remove_partial(case)
        write_json(FailureRecord(cause=without_path(cause, case), version=__version__), case.files.failure)
    named = case.refusal is not None or case.scan.path.name in cause
    return cause if named else f"{case.scan.path}: {cause}"


def describe(error: Exception) -> str:
    """A user's error as it stands; another with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def without_path(text: str, case: Case) -> str:
    """``text`` with the folders cut off that the scan and its mask lie in: they may tell who and where."""
    for path in (case.scan.path, case.scan.path.resolve(), case.files.mask, case.files.mask.resolve()):
        text = text.replace(f"{path.parent}{os.sep}", "") if path.parent.name else text
    return text


def remove_partial(case: Case) -> None:
    """Remove what a killed process left of this case's files before their last byte was written."""
    files = case.files
    pictures = (files.of_kind(PREVIEW), files.of_kind(FEATURES))
    for target in (files.mask, files.record, files.failure, *pictures):
        for partial in target.parent.glob(f".partial-*-{target.name}"):
            partial.unlink(missing_ok=True)
    for kind in ("probabilities", "attention"):
        for partial in files.of_kind(f"{kind}/x").parent.glob(".partial-*"):
            partial.unlink(missing_ok=True)


@contextmanager
def _marked(case: Case) -> Iterator[None]:
    """Mark ``case`` as being written, and clear the mark and an earlier failure once it is.

    Where writing fails before there is a mask, nothing is left to be told apart.
    """
    files = case.files
    atomic.write_text(files.mark, f"{os.getpid()}\n")
    remove_partial(case)
    files.record.unlink(missing_ok=True)
    try:
        yield
    except Exception:
        if not files.mask.exists():
            files.mark.unlink(missing_ok=True)
        raise
    files.failure.unlink(missing_ok=True)
    files.mark.unlink(missing_ok=True)


def _write_volumes(case: Case, computed: Computed, resolved: Resolved) -> list[str]:
    """Write probabilities and attention maps; their kinds."""
    steps = {
        f"probabilities/{name}": Volume(hu=_in_steps(volume.hu), grid=volume.grid)
        for name, volume in computed.prediction.probabilities.items()
        if name in resolved.scheme.names
    }
    maps = {f"attention/{name}": volume for name, volume in computed.attention.items()}
    for kind, volume in (steps | maps).items():
        nifti.write_volume(volume, case.files.of_kind(kind), frame=computed.loaded.frame)
    return [*steps, *maps]


def _in_steps(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    return (np.rint(probabilities / PROBABILITY_STEP) * PROBABILITY_STEP).astype(np.float32)


def _write_preview(case: Case, volume: Volume, mask: Mask, scheme: LabelScheme) -> None:
    from ct_attn.report.preview import preview_picture  # noqa: PLC0415 - matplotlib is slow to import

    atomic.write_bytes(case.files.of_kind(PREVIEW), preview_picture(volume, mask, scheme=scheme))


def _only(mask: Mask, scheme: LabelScheme) -> Mask:
    """``mask`` with the codes of ``scheme`` alone."""
    table = np.zeros(256, dtype=np.uint8)
    codes = list(scheme.codes.values())
    table[codes] = codes
    return mask if not scheme.unknown_codes(mask.labels) else Mask(labels=table[mask.labels], grid=mask.grid)


def _confidence(prediction: Prediction, scheme: LabelScheme) -> dict[str, float | None]:
    return {
        name: None if math.isnan(value) else round(float(value), 6)
        for name, value in prediction.confidence.items()
        if name in scheme.names
    }


def _options(resolved: Resolved) -> dict[str, Any]:
    """All that was asked for, but where files are."""
    request = resolved.request
    return {
        "inference": asdict(request.inference),
        "reading": asdict(request.reading),
        "outputs": asdict(request.outputs),
        "filter": request.filter,
    }


def _versions() -> dict[str, str]:
    found = {"ct_attn": __version__}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
