from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from ct_attn.inference.backends.openvino_backend import core
from ct_attn.network.build import build_network
from ct_attn.network.configs import AttentionUNetConfig, UNetConfig
from ct_attn.network.folding import folded

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install ct-attn[cpu]")

from ct_attn.inference.backends.conversion import _traced  # noqa: E402
from ct_attn.inference.backends.rewriting import raising, rewritten  # noqa: E402

NARROW = (2, 3, 4, 5)
NETWORKS = {
    "attention_unet": AttentionUNetConfig(widths=NARROW),
    "highway": AttentionUNetConfig(widths=NARROW, highway=True, gates_per_skip=2),
    "corners lined up": UNetConfig(widths=NARROW, align_corners=True),
    "no fused heads": UNetConfig(widths=NARROW, deep_supervision="per_scale"),
    "instance norm": UNetConfig(widths=NARROW, norm="instance", upsampling="transposed"),
    "thick slices": UNetConfig(widths=NARROW, pool_size=(2, 2, 1), kernel_size=(3, 3, 1)),
}


def converted(config, size):
    """The network of ``config`` with random normalisations, and as OpenVINO has it, of one ``size``."""
    torch.manual_seed(0)
    network = build_network(config, in_channels=1, n_classes=3)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 1, 32, 16, 16))
    network = folded(network)
    model = _traced(network, torch.rand(1, 1, 16, 16, 16))
    model.reshape({0: openvino.PartialShape([1, 1, *size])})
    return network, model


def layers_of(model) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ordered_ops())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(32, 16, 48), (16, 8, 8)])
def test_logits_stay_torchs(name, size):
    network, model = converted(NETWORKS[name], size)
    window = np.random.default_rng(0).random((1, 1, *size), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(window)).numpy()
    compiled = core().compile_model(rewritten(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({0: window})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_no_map_is_copied(name):
    _, model = converted(NETWORKS[name], (32, 16, 48))

    def joined():
        nodes = (node for node in model.get_ordered_ops() if node.get_type_name() == "Concat")
        return [node for node in nodes if node.get_output_partial_shape(0).rank.get_length() == 5]

    assert any(node.get_attributes()["axis"] == 1 for node in joined())
    rewritten(model)
    assert not any(node.get_attributes()["axis"] == 1 for node in joined())


def test_several_windows_at_once_are_each_raised():
    network, model = converted(NETWORKS["attention_unet"], (16, 16, 16))
    model.reshape({0: openvino.PartialShape([3, 1, 16, 16, 16])})
    windows = np.random.default_rng(0).random((3, 1, 16, 16, 16), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(windows)).numpy()
    found = core().compile_model(rewritten(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({0: windows})[
        0
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_class_maps_are_raised_by_products():
    _, model = converted(NETWORKS["attention_unet"], (32, 16, 48))
    before = layers_of(model)
    after = layers_of(rewritten(model))
    levels = len(NARROW) - 1
    joined = [node for node in model.get_ordered_ops() if node.get_type_name() == "Concat"]
    assert [node.get_output_shape(0)[-1] for node in joined] == [24 + 12]  # class maps, along k
    assert before["Interpolate"] - after["Interpolate"] == levels - 1
    assert after["MatMul"] == 2 * (levels - 1) + 1


def test_corners_that_are_lined_up_are_raised_as_before():
    _, model = converted(NETWORKS["corners lined up"], (32, 16, 48))
    before = layers_of(model)["Interpolate"]
    assert layers_of(rewritten(model))["Interpolate"] == before


@given(old=st.integers(1, 40), new=st.integers(1, 90))
def test_the_matrix_interpolates_as_torch_does(old, new):
    values = np.random.default_rng(old).random(old, dtype=np.float32)
    expected = functional.interpolate(torch.from_numpy(values)[None, None], size=new, mode="linear")[0, 0]
    np.testing.assert_allclose(raising(old, new) @ values, expected.numpy(), rtol=0, atol=5e-6)
