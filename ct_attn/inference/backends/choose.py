"""Which backend computes a model on this machine, and in which number format."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ct_attn import atomic
from ct_attn.errors import UserError
from ct_attn.inference.backends import openvino_backend
from ct_attn.inference.backends.backend import Backend, CannotConvertError, Format
from ct_attn.inference.backends.cache import cache_folder, processor, short
from ct_attn.inference.options import InferenceOptions
from ct_attn.model_file import ModelFile
from ct_attn.network.configs import without_gates

OnNote = Callable[[str], None]

#: What is timed when backends are compared, in voxels at most along each axis.
_TRIED = (96, 96, 64)


def choose_backend(model: ModelFile, options: InferenceOptions, on_note: OnNote) -> Backend:
    """What computes ``model`` as ``options`` say.

    On a graphics card torch does. On a processor ``auto`` takes the faster of OpenVINO,
    where it is installed, and torch: measured once, and kept beside the model, so that
    one machine always decides alike. Raises :class:`UserError` when the device or the
    backend asked for is not there, or OpenVINO is asked to compile through torch.
    """
    if options.compile and options.backend == "openvino":
        raise UserError(
            "--compile",
            expected="the torch backend",
            found="--backend openvino",
            remedy="leave one of the two out",
        )
    device = _device(options)
    if device is not None:
        if options.backend == "openvino":
            raise UserError(
                "--backend openvino", expected="a CPU", found=f"--device {device}", remedy="add --device cpu"
            )
        return torch_backend(model, device, options, on_note)
    if model.recipe.slices is not None:  # what applies a network to slices is not converted
        if options.backend == "openvino":
            on_note("networks of slices are computed by torch, not by OpenVINO")
        return torch_backend(model, "cpu", options, on_note)
    if options.backend == "openvino" and not openvino_backend.is_installed():
        raise UserError(
            "--backend openvino",
            expected="OpenVINO",
            found="it is not installed",
            remedy="pip install 'ct-attn[cpu]'",
        )
    if options.compile or options.backend == "torch" or not openvino_backend.is_installed():
        return torch_backend(model, "cpu", options, on_note)
    try:
        return _on_processor(model, options, on_note)
    except CannotConvertError as error:
        on_note(f"OpenVINO cannot compute this network as torch does ({error}); torch computes it")
        return torch_backend(model, "cpu", options)


def torch_backend(
    model: ModelFile, device: str, options: InferenceOptions, on_note: OnNote = lambda note: None
) -> Backend:
    """The network of ``model`` in torch; ``on_note`` hears of compiling it, if ``options`` ask for that."""
    import torch  # noqa: PLC0415 # seconds, and OpenVINO does without

    from ct_attn.checkpoint import load_checkpoint  # noqa: PLC0415
    from ct_attn.device import computes_bf16  # noqa: PLC0415
    from ct_attn.inference.backends.torch_backend import TorchBackend  # noqa: PLC0415

    where = torch.device(device)
    asked = _asked(model, options)
    precision = asked or ("bf16" if computes_bf16(where) else "fp32")
    if options.compile:
        on_note("compiling the network: the first window of every size takes longer, in every run")
    network = load_checkpoint(model.path).network()
    return TorchBackend(network, where, precision, compiled=options.compile, on_note=on_note)


def attention_backend(
    model: ModelFile, options: InferenceOptions, *, features: bool = False
) -> tuple[Backend, list[str]]:
    """What computes the gates' coefficients of ``model``, and their names, in the order of channels.

    With ``features``, three channels for each gate: :meth:`AttentionUNet.stacked_features`.
    Raises :class:`UserError` when the network has no gates.
    """
    import torch  # noqa: PLC0415

    from ct_attn.checkpoint import load_checkpoint  # noqa: PLC0415
    from ct_attn.inference.backends.torch_backend import TorchBackend  # noqa: PLC0415
    from ct_attn.network.slicewise import gates_of  # noqa: PLC0415

    network = load_checkpoint(model.path).network()
    gates = gates_of(network)
    if gates is None:
        raise without_gates(model.recipe.name, model.recipe.network.kind)
    device = torch.device(_device(options) or "cpu")

    def function(folded: Any) -> Any:
        of_gates = gates_of(folded, features=features)
        assert of_gates is not None
        return of_gates[1]

    return TorchBackend(network, device, compute=function), gates[0]


def _device(options: InferenceOptions) -> str | None:
    """The device to compute on; None for the processor."""
    if options.device == "cpu" or (options.device == "auto" and not _may_have_accelerator()):
        return None
    from ct_attn.device import choose_device  # noqa: PLC0415 # torch

    device = choose_device(options.device)
    return None if device.type == "cpu" else str(device)


def _may_have_accelerator() -> bool:
    """Whether it is worth asking torch, which takes seconds to import."""
    return sys.platform != "linux" or any(Path("/dev").glob("nvidia*")) or Path("/dev/kfd").exists()


def _asked(model: ModelFile, options: InferenceOptions) -> Format | None:
    """The number format that the options or the recipe name; None for ``auto``."""
    named = options.precision or model.recipe.inference.precision
    return None if named == "auto" else named


def _on_processor(model: ModelFile, options: InferenceOptions, on_note: OnNote) -> Backend:
    precision = _asked(model, options) or openvino_backend.best_precision()
    backend = openvino_backend.OpenVinoBackend(model, precision, on_note)
    if options.backend == "openvino":
        backend.convert()
        return backend
    record = cache_folder(model) / f"choice-{_key(model, precision)}.json"
    choice = _read(record)
    if choice is None:
        choice = _measured(model, options, backend)
        on_note(
            "measured once on this processor: "
            + ", ".join(f"{name} {seconds:.2f} s a window" for name, seconds in choice["seconds"].items())
        )
        atomic.write_text(record, json.dumps(choice, indent=1) + "\n")
    return backend if choice["backend"] == "openvino" else torch_backend(model, "cpu", options)


def _key(model: ModelFile, precision: Format) -> str:
    versions = f"openvino {version('openvino')} r{openvino_backend.REVISION} torch {version('torch')}"
    return f"{short(model.digest)}-{processor()}-{precision}-{short(versions)}"


def _read(record: Path) -> dict[str, Any] | None:
    try:
        choice = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return choice if isinstance(choice, dict) and choice.get("backend") in ("openvino", "torch") else None


def _measured(
    model: ModelFile, options: InferenceOptions, openvino: openvino_backend.OpenVinoBackend
) -> dict[str, Any]:
    """The faster backend and the seconds of both for one window."""
    multiple = model.recipe.network.size_multiple
    size = [max(1, most // side) * side for most, side in zip(_TRIED, multiple, strict=False)]
    window = np.random.default_rng(0).random((1, 1, *size), dtype=np.float32)
    openvino.convert()
    seconds = {
        "openvino": _seconds(openvino, window),
        "torch": _seconds(torch_backend(model, "cpu", options), window),
    }
    return {"backend": min(seconds, key=lambda name: seconds[name]), "seconds": seconds, "window": size}


def _seconds(backend: Backend, window: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """The faster of two runs after one that warms up."""
    backend.logits(window)
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        backend.logits(window)
        taken.append(time.perf_counter() - started)
    return min(taken)
