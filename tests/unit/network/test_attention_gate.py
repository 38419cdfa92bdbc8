from __future__ import annotations

import numpy as np
import pytest
import torch

from ct_attn.network.attention_gate import AttentionGate, MultiAttentionGate
from ct_attn.network.blocks import RELEASED, Layers
from ct_attn.network.gate_form import GateForm

SKIP, GATING = 3, 5


def inputs(skip=(8, 6, 4), gating=(4, 3, 2)):
    return torch.randn(2, SKIP, *skip, dtype=torch.float64), torch.randn(
        2, GATING, *gating, dtype=torch.float64
    )


def drawn_gate(kind=AttentionGate, *, layers=RELEASED, **form):
    """In float64, evaluating, with every number of it drawn at random."""
    gate = kind(SKIP, GATING, form=GateForm(**form), layers=layers).double().eval()
    for module in gate.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    return gate


def trilinear(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Written out: voxel i of n lies at (i + 1/2) m / n - 1/2 of m, held at the ends."""
    for axis, wanted in enumerate(size, start=2):
        given = x.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, given - 1)
        share = (at - low).reshape([-1 if other == axis else 1 for other in range(5)])
        x = (1 - share) * x.take(low, axis) + share * x.take(high, axis)
    return x


def pointwise(convolution, x: np.ndarray) -> np.ndarray:
    """A 1x1x1 convolution as the matrix product it is."""
    weight = convolution.weight.detach().numpy()[:, :, 0, 0, 0]
    return np.einsum("oc,bcijk->boijk", weight, x) + convolution.bias.detach().numpy().reshape(1, -1, 1, 1, 1)


def normalised(norm, x: np.ndarray) -> np.ndarray:
    mean, variance, weight, bias = (
        tensor.detach().numpy().reshape(1, -1, 1, 1, 1)
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(variance + norm.eps) * weight + bias


def alpha_by_the_paper(gate: AttentionGate, skip: np.ndarray, gating: np.ndarray) -> np.ndarray:
    """Equations (1) and (2); W_x sees the skip in blocks of 2x2x2 voxels."""
    batch, channels, *size = skip.shape
    halves = [side // 2 for side in size]
    cut = skip[:, :, : halves[0] * 2, : halves[1] * 2, : halves[2] * 2]
    blocks = cut.reshape(batch, channels, halves[0], 2, halves[1], 2, halves[2], 2)
    theta = np.einsum("ocxyz,bcixjykz->boijk", gate.theta.weight.detach().numpy(), blocks)
    phi = trilinear(pointwise(gate.phi, gating), theta.shape[2:])
    q = pointwise(gate.psi, np.maximum(theta + phi, 0))
    return trilinear(1 / (1 + np.exp(-q)), skip.shape[2:])


@pytest.mark.parametrize(
    ("skip_size", "gating_size"),
    [((8, 6, 4), (4, 3, 2)), ((8, 8, 4), (2, 4, 1)), ((7, 5, 4), (3, 2, 2))],
    ids=["one level below", "two levels below", "odd sides"],
)
def test_the_gate_is_the_papers_formulas(skip_size, gating_size):
    gate = drawn_gate()
    skip, gating = inputs(skip_size, gating_size)
    alpha = alpha_by_the_paper(gate, skip.numpy(), gating.numpy())
    np.testing.assert_allclose(gate.coefficients(skip, gating).detach().numpy(), alpha, rtol=0, atol=1e-6)

    passed = normalised(gate.transform[1], pointwise(gate.transform[0], alpha * skip.numpy()))
    combined = np.maximum(normalised(gate.combine[1], pointwise(gate.combine[0], passed)), 0)
    np.testing.assert_allclose(gate(skip, gating).detach().numpy(), combined, rtol=0, atol=1e-6)


def q_by_the_paper(gate, skip: np.ndarray, gating: np.ndarray, stride=(2, 2, 2)) -> np.ndarray:
    """Equation (1) on the coarse grid: W_x as a sum over the voxels of each block."""
    weight = gate.theta.weight.detach().numpy()
    theta = sum(
        np.einsum(
            "oc,bcijk->boijk",
            weight[:, :, x, y, z],
            skip[:, :, x :: stride[0], y :: stride[1], z :: stride[2]],
        )
        for x, y, z in np.ndindex(*stride)
    )
    phi = trilinear(pointwise(gate.phi, gating), theta.shape[2:])
    return pointwise(gate.psi, np.maximum(theta + phi, 0))


def softmax(q: np.ndarray) -> np.ndarray:
    share = np.exp(q - q.max(axis=(1, 2, 3, 4), keepdims=True))
    return share / share.sum(axis=(1, 2, 3, 4), keepdims=True)


ACTIVATIONS = {"sigmoid": lambda q: 1 / (1 + np.exp(-q)), "softmax": softmax, "none": lambda q: q}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 2, 1), (1, 1, 1)])
def test_every_form_of_the_gate_is_its_formula(activation, stride):
    gate = drawn_gate(activation=activation, stride=stride)
    skip, gating = inputs()
    q = q_by_the_paper(gate, skip.numpy(), gating.numpy(), stride)
    alpha = trilinear(ACTIVATIONS[activation](q), skip.shape[2:])
    np.testing.assert_allclose(gate.coefficients(skip, gating).detach().numpy(), alpha, rtol=0, atol=1e-6)


PARTS = ("theta", "phi", "psi")


def strided(convolution, skip: np.ndarray, stride) -> np.ndarray:
    weight = convolution.weight.detach().numpy()
    sums = sum(
        np.einsum(
            "oc,bcijk->boijk",
            weight[:, :, x, y, z],
            skip[:, :, x :: stride[0], y :: stride[1], z :: stride[2]],
        )
        for x, y, z in np.ndindex(*stride)
    )
    return sums + convolution.bias.detach().numpy().reshape(1, -1, 1, 1, 1)


@pytest.mark.parametrize("norms", [PARTS[:2], PARTS])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize("coefficients", ["one", "per_channel"])
def test_a_gate_with_normalised_parts_is_its_formula(norms, stride, coefficients):
    gate = drawn_gate(norms=norms, stride=stride, coefficients=coefficients, output="plain", inner_share=2)
    skip, gating = inputs()
    theta = normalised(gate.theta[1], strided(gate.theta[0], skip.numpy(), stride))
    raised = trilinear(gating.numpy(), theta.shape[2:])
    phi = normalised(gate.phi[1], pointwise(gate.phi[0], raised))
    total = np.maximum(theta + phi, 0)
    assert total.shape[1] == 1  # half of three
    psi, norm = gate.psi if "psi" in norms else (gate.psi, None)
    q = pointwise(psi, total) if norm is None else normalised(norm, pointwise(psi, total))
    assert q.shape[1] == (SKIP if coefficients == "per_channel" else 1)
    alpha = trilinear(1 / (1 + np.exp(-q)), skip.shape[2:])
    np.testing.assert_allclose(gate.coefficients(skip, gating).detach().numpy(), alpha, rtol=0, atol=1e-6)
    np.testing.assert_allclose(gate(skip, gating).detach().numpy(), alpha * skip.numpy(), rtol=0, atol=1e-5)
    shown = gate.maps(skip, gating).detach().numpy()
    np.testing.assert_allclose(shown, alpha.mean(axis=1, keepdims=True), rtol=0, atol=1e-6)


def test_a_pooled_theta_and_a_raised_alpha_are_their_formulas():
    gate = drawn_gate(theta="pooled", stride=(2, 2, 2), coefficients="raised", output="plain")
    skip, gating = inputs()
    batch, channels, i, j, k = skip.shape
    blocks = skip.numpy().reshape(batch, channels, i // 2, 2, j // 2, 2, k // 2, 2)
    theta = pointwise(gate.theta[1], blocks.max(axis=(3, 5, 7)))
    q = pointwise(gate.psi, np.maximum(theta + pointwise(gate.phi, gating.numpy()), 0))
    weight = gate.raiser.weight.detach().numpy()  # [1, C, 2, 2, 2]
    raised = np.einsum("bijk,cxyz->bcixjykz", 1 / (1 + np.exp(-q[:, 0])), weight[0])
    alpha = raised.reshape(skip.shape) + gate.raiser.bias.detach().numpy().reshape(1, -1, 1, 1, 1)
    np.testing.assert_allclose(gate.coefficients(skip, gating).detach().numpy(), alpha, rtol=0, atol=1e-6)
    np.testing.assert_allclose(gate(skip, gating).detach().numpy(), alpha * skip.numpy(), rtol=0, atol=1e-5)


def test_a_gate_may_prepare_its_own_signal():
    gate = drawn_gate(own_signal=True, output="plain")
    skip, gating = inputs()
    signal = np.maximum(normalised(gate.signal[1], pointwise(gate.signal[0], gating.numpy())), 0)
    alpha = 1 / (1 + np.exp(-q_by_the_paper(gate, skip.numpy(), signal)))
    alpha = trilinear(alpha, skip.shape[2:])
    np.testing.assert_allclose(gate.coefficients(skip, gating).detach().numpy(), alpha, rtol=0, atol=1e-6)


def test_a_transformed_skip_is_not_combined():
    gate = drawn_gate(output="transformed")
    skip, gating = inputs()
    assert torch.equal(gate(skip, gating), gate.attend(skip, gating))
    assert not list(gate.combine.parameters())


def test_two_gates_are_concatenated_and_combined():
    multi = drawn_gate(MultiAttentionGate)
    skip, gating = inputs()
    passed, alphas = [], []
    for gate in multi.attentions:
        alpha = trilinear(
            1 / (1 + np.exp(-q_by_the_paper(gate, skip.numpy(), gating.numpy()))), skip.shape[2:]
        )
        alphas.append(alpha)
        passed.append(normalised(gate.transform[1], pointwise(gate.transform[0], alpha * skip.numpy())))
    both = pointwise(multi.combine[0], np.concatenate(passed, axis=1))
    combined = np.maximum(normalised(multi.combine[1], both), 0)
    np.testing.assert_allclose(multi(skip, gating).detach().numpy(), combined, rtol=0, atol=1e-6)
    maps = multi.coefficients(skip, gating).detach().numpy()
    np.testing.assert_allclose(maps, np.concatenate(alphas, axis=1), rtol=0, atol=1e-6)


def test_a_softmax_shares_out_one_unit_of_attention():
    skip, gating = inputs()
    alpha = drawn_gate(activation="softmax", stride=1).coefficients(5 * skip, 5 * gating)
    assert alpha.min() > 0
    assert alpha.sum(dim=(1, 2, 3, 4)).detach().numpy() == pytest.approx(1)


def test_a_gate_on_slices_is_the_same_gate_on_a_flat_volume():
    flat = drawn_gate(layers=Layers(dims=2))
    deep = drawn_gate(stride=(2, 2, 1))
    deep.load_state_dict(
        {
            name: tensor[..., None] if tensor.dim() == 4 else tensor
            for name, tensor in flat.state_dict().items()
        }
    )
    skip, gating = inputs((8, 6, 1), (4, 3, 1))
    slices = flat(skip[..., 0], gating[..., 0])
    assert torch.allclose(slices, deep(skip, gating)[..., 0], atol=1e-9)


def test_alpha_is_one_map_between_0_and_1_on_the_skips_grid():
    skip, gating = inputs()
    alpha = drawn_gate().coefficients(5 * skip, 5 * gating)
    assert alpha.shape == (2, 1, 8, 6, 4)
    assert alpha.min() > 0
    assert alpha.max() < 1
    assert alpha.std() > 0.01


def test_the_gated_skip_has_the_skips_shape_and_no_negative_values():
    skip, gating = inputs()
    gated = drawn_gate()(skip, gating)
    assert gated.shape == skip.shape
    assert gated.min() >= 0


@pytest.mark.parametrize(("bias", "alpha"), [(0.0, 0.5), (3.0, 0.952574)])
def test_a_gate_that_sees_nothing_lets_the_same_share_through_everywhere(bias, alpha):
    gate = drawn_gate()
    gate.psi.weight.data.zero_()
    gate.psi.bias.data.fill_(bias)
    assert gate.coefficients(*inputs()).detach().numpy() == pytest.approx(alpha, abs=1e-6)


def test_what_goes_on_is_the_skip_times_alpha_and_nothing_where_the_skip_is_nothing():
    gate = drawn_gate()
    skip, gating = inputs()
    skip[:, :, 2:5] = 0
    seen = []
    gate.transform.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    gate(skip, gating)
    assert torch.equal(seen[0], skip * gate.coefficients(skip, gating))
    assert not seen[0][:, :, 2:5].any()
    assert seen[0][:, :, 5:].any()


def test_skip_and_gating_signal_both_move_alpha():
    gate = drawn_gate()
    skip, gating = inputs()
    alpha = gate.coefficients(skip, gating)
    assert not torch.allclose(gate.coefficients(skip + 1, gating), alpha, atol=1e-3)
    assert not torch.allclose(gate.coefficients(skip, gating + 1), alpha, atol=1e-3)


def test_the_convolutions_are_the_released_ones():
    gate = AttentionGate(32, 64)
    assert gate.theta.weight.shape == (32, 32, 2, 2, 2)
    assert gate.theta.stride == (2, 2, 2)
    assert gate.theta.bias is None
    assert gate.phi.weight.shape == (32, 64, 1, 1, 1)
    assert gate.phi.bias.shape == (32,)
    assert gate.psi.weight.shape == (1, 32, 1, 1, 1)
    assert gate.psi.bias.shape == (1,)


@pytest.mark.parametrize(
    ("skip_channels", "gating_channels", "parameters"),
    [(32, 64, 12_545), (64, 128, 49_665), (128, 256, 197_633)],
)
def test_parameter_counts_of_the_released_gates(skip_channels, gating_channels, parameters):
    gate = AttentionGate(skip_channels, gating_channels)
    assert sum(parameter.numel() for parameter in gate.parameters()) == parameters
