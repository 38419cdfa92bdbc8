"""The same network in fewer passes over its largest maps, for OpenVINO on a processor.

Where a processor multiplies matrices fast, copying and raising maps of full size takes as long as
convolving them. What is rewritten is equal to rounding.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as layers
from openvino.passes import ConstantFolding, Manager

from ct_attn.interpolation import interpolation_weights

Weights = NDArray[np.float64]

#: Of an ``Interpolate``: how :func:`raising` does it.
_RAISING = ("linear_onnx", "pytorch_half_pixel")


def rewritten(network: Any) -> Any:
    """``network``, an OpenVINO model of one size of windows, changed in place."""
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(network)
    for node in network.get_ordered_ops():
        if _is(node, "Convolution") and _concatenated(node) and not _fuse_heads(node):
            _split(node)
    network.validate_nodes_and_infer_types()
    return network


def _split(convolution: Any) -> None:
    """A convolution of joined maps becomes the sum of the maps' convolutions: nothing is copied."""
    weights = _constant(convolution.input_value(1))
    if weights is None:
        return
    parts, first = [], 0
    for part in convolution.input_value(0).get_node().input_values():
        channels = part.get_shape()[1]
        parts.append(_convolved(part, weights[:, first : first + channels], like=convolution))
        first += channels
    total = parts[0]
    for part in parts[1:]:
        total = layers.add(total, part)
    _replace(convolution, total)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Head:
    """A 1x1x1 convolution of ``features`` with ``weights`` [out, in] and ``bias`` [out], later ``raised``."""

    features: Any
    weights: Weights
    bias: Weights
    raised: bool


def _fuse_heads(fuse: Any) -> bool:
    """Class maps of all scales, raised to full size, joined and fused by a 1x1x1 convolution ``fuse``.

    Linear interpolation and a 1x1x1 convolution can change places and two such convolutions
    are one, so that every scale gets weights of its own and what is raised is only added. Along
    each axis raising is a product with a matrix, and that along the last axis adds the scales.
    """
    weights, last = _pointwise(fuse), _biased(fuse)
    parts = fuse.input_value(0).get_node().input_values()
    heads = [head for head in map(_head, parts) if head is not None]
    if weights is None or last is None or len(heads) < len(parts):
        return False
    end, bias = last
    whole: list[Any] = []
    raised: list[Any] = []
    ends = np.cumsum([len(head.bias) for head in heads])[:-1]
    for head, own in zip(heads, np.split(weights, ends, axis=1), strict=True):
        bias = bias + own @ head.bias
        found = _convolved(head.features, (own @ head.weights)[..., None, None, None], like=fuse)
        (raised if head.raised else whole).append(found)
    if len(whole) != 1 or not raised:
        return False
    total = layers.add(whole[0], layers.constant(bias.astype(np.float32).reshape(1, -1, 1, 1, 1)))
    _replace(end, layers.add(total, _sum_of_raised(raised, end.get_output_shape(0)[2:])))
    return True


def _sum_of_raised(maps: list[Any], size: tuple[int, int, int]) -> Any:
    """The sum of ``maps`` [B, C, i, j, k], each brought to ``size`` linearly."""
    bars, along_last = [], []
    for one in maps:
        batch, classes, i, j, k = one.get_output_shape(0)
        found = layers.reshape(one, np.array([batch, classes, i, j * k]), False)
        found = layers.matmul(layers.constant(raising(i, size[0])), found, False, False)
        found = layers.reshape(found, np.array([batch, classes, size[0], j, k]), False)
        bars.append(layers.matmul(layers.constant(raising(j, size[1])), found, False, False))
        along_last.append(raising(k, size[2]))
    joined = layers.concat(bars, 4) if len(bars) > 1 else bars[0]
    return layers.matmul(joined, layers.constant(np.concatenate(along_last, axis=1)), False, True)


def raising(old: int, new: int) -> NDArray[np.float32]:
    """Linear upsampling of ``old`` voxels to ``new``, as a matrix [new, old]; edges are held.

    Voxels are cells: the first one's centre lies half a voxel from the edge.
    """
    return interpolation_weights((np.arange(new) + 0.5) * old / new - 0.5, old)


def _head(part: Any) -> _Head | None:
    """The head that ends in ``part``; None where it is something else."""
    raised = _is(part.get_node(), "Interpolate")
    if raised:
        how = part.get_node().get_attributes()
        if (how["mode"], how["coordinate_transformation_mode"]) != _RAISING:
            return None
        part = part.get_node().input_value(0)
    add = part.get_node()
    convolution = add.input_value(0).get_node() if _is(add, "Add") else None
    if convolution is None or not _is(convolution, "Convolution") or len(part.get_target_inputs()) != 1:
        return None
    weights, last = _pointwise(convolution), _biased(convolution)
    if weights is None or last is None:
        return None
    return _Head(features=convolution.input_value(0), weights=weights, bias=last[1], raised=raised)


def _biased(convolution: Any) -> tuple[Any, Weights] | None:
    """What adds the bias of ``convolution``, and the bias; None where nothing does, or more sees it."""
    users = [user.get_node() for user in convolution.output(0).get_target_inputs()]
    if len(users) != 1 or not _is(users[0], "Add"):
        return None
    bias = _constant(users[0].input_value(1))
    if bias is None or bias.size != convolution.get_output_shape(0)[1]:
        return None
    return users[0], bias.ravel()


def _pointwise(convolution: Any) -> Weights | None:
    """The weights [out, in] of a 1x1x1 convolution that keeps the grid; None for another one."""
    weights, how = _constant(convolution.input_value(1)), convolution.get_attributes()
    if weights is None or weights.shape[2:] != (1, 1, 1):
        return None
    keeps = set(how["strides"]) == {1} and set(how["pads_begin"]) | set(how["pads_end"]) == {0}
    return weights[:, :, 0, 0, 0] if keeps else None


def _convolved(maps: Any, weights: Weights, *, like: Any) -> Any:
    how = like.get_attributes()
    kernel = layers.constant(np.ascontiguousarray(weights, dtype=np.float32))
    return layers.convolution(
        maps, kernel, how["strides"], how["pads_begin"], how["pads_end"], how["dilations"], how["auto_pad"]
    )


def _concatenated(convolution: Any) -> bool:
    """Whether the convolution's input are maps that were joined along their channels, for it alone."""
    joined = convolution.input_value(0)
    node = joined.get_node()
    alone = len(joined.get_target_inputs()) == 1
    return _is(node, "Concat") and node.get_attributes()["axis"] == 1 and alone


def _constant(value: Any) -> Weights | None:
    node = value.get_node()
    return np.asarray(node.data, dtype=np.float64) if _is(node, "Constant") else None


def _is(node: Any, kind: str) -> bool:
    return bool(node.get_type_name() == kind)


def _replace(old: Any, new: Any) -> None:
    new.set_friendly_name(old.get_friendly_name())
    for user in list(old.output(0).get_target_inputs()):
        user.replace_source_output(new.output(0))
