"""A torch network as an OpenVINO model that takes windows of any size."""

# mypy: allow-untyped-calls

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn

from ct_attn.checkpoint import load_checkpoint
from ct_attn.inference.backends.backend import CannotConvertError
from ct_attn.inference.backends.openvino_backend import core
from ct_attn.inference.backends.rewriting import rewritten
from ct_attn.model_file import ModelFile
from ct_attn.network.folding import folded

#: Largest difference from torch, as a fraction of the largest logit.
_TOLERANCE = 1e-3


def convert(model: ModelFile) -> Any:
    """The network of ``model``, its normalisations folded, as an OpenVINO model.

    It is traced on a small window and compared with torch on another one of a different
    size. Raises :class:`CannotConvertError` when one fails or they differ.
    """
    network = folded(load_checkpoint(model.path).network())
    multiple = model.recipe.network.size_multiple
    traced_at = tuple(2 * side for side in multiple)
    checked_at = tuple((2 + axis) * side for axis, side in enumerate(multiple))
    try:
        converted = _traced(network, torch.rand(1, 1, *traced_at, generator=torch.Generator().manual_seed(0)))
    except Exception as error:  # whatever a library says that meets a layer it does not know
        raise CannotConvertError(str(error).splitlines()[0]) from error
    _compare(network, converted, checked_at)
    return converted


def _traced(network: nn.Module, window: torch.Tensor) -> Any:
    """OpenVINO's own front end, since its ``convert_model`` reports its use over the network."""
    with torch.inference_mode(), warnings.catch_warnings(action="ignore"):  # sizes are constants of the trace
        traced = torch.jit.freeze(torch.jit.trace(network, window, check_trace=False))
        decoder = TorchScriptPythonDecoder(traced)  # must outlive the conversion
        front_end = FrontEndManager().load_by_framework("pytorch")
        converted = front_end.convert(front_end.load(decoder))
    converted.reshape({0: openvino.PartialShape([1, 1, *(-1 for _ in window.shape[2:])])})
    return converted


def _compare(network: nn.Module, converted: Any, size: tuple[int, ...]) -> None:
    window = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(window).numpy()
    try:
        of_size = converted.clone()
        of_size.reshape({0: openvino.PartialShape([*window.shape])})
        compiled = core().compile_model(rewritten(of_size), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = compiled({0: window.numpy()})[0]
    except RuntimeError as error:
        raise CannotConvertError(str(error).splitlines()[0]) from error
    if found.shape != expected.shape:
        raise CannotConvertError(f"its logits have the shape {found.shape}, torch's {expected.shape}")
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference < _TOLERANCE:
        raise CannotConvertError(f"its logits differ from torch's by {difference:.2g} of the largest")
