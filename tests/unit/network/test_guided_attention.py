from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ct_attn.network.blocks import Layers
from ct_attn.network.build import build_network
from ct_attn.network.guided_attention import (
    ChannelAttention,
    GuidedAttentionConfig,
    PositionAttention,
    SemanticAutoencoder,
)

FLAT = Layers(dims=2)


def drawn(**fields):
    config = GuidedAttentionConfig(**{"dims": 2, "width": 8, **fields})
    return build_network(config, in_channels=1, n_classes=3)


def with_gamma(attention, gamma):
    torch.nn.init.constant_(attention.gamma, gamma)
    return attention


@pytest.mark.parametrize("layers", [FLAT, Layers()], ids=["2D", "3D"])
def test_position_attention_equals_the_formula(layers):
    attention = with_gamma(PositionAttention(16, layers), 0.75).double()
    x = torch.randn(2, 16, *(3, 5, 4)[: layers.dims], dtype=torch.float64)
    q, k, v = (part(x).flatten(2) for part in (attention.query, attention.key, attention.value))
    a = torch.softmax(q.transpose(1, 2) @ k, dim=-1)
    assert torch.allclose(a.sum(-1), torch.ones_like(a.sum(-1)))
    expected = 0.75 * (v @ a.transpose(1, 2)).reshape(x.shape) + x
    assert torch.allclose(attention(x), expected, rtol=0, atol=1e-12)


def test_channel_attention_equals_the_formula():
    attention = with_gamma(ChannelAttention(), 0.75).double()
    x = 0.3 * torch.randn(2, 6, 4, 5, dtype=torch.float64)
    flat = x.reshape(2, 6, 20)
    a = torch.softmax(torch.einsum("bcn,bdn->bcd", flat, flat), dim=-1)
    expected = 0.75 * torch.einsum("bcd,bdn->bcn", a, flat).reshape(x.shape) + x
    assert torch.allclose(attention(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", [PositionAttention(16, FLAT), ChannelAttention()])
def test_attention_rows_sum_to_1(attention):
    """A mean over equal things is that thing."""
    attention = with_gamma(attention, 1.0)
    x = torch.full((1, 16, 4, 4), 0.5)
    expected = attention.value(x) + x if isinstance(attention, PositionAttention) else 2 * x
    assert torch.allclose(attention(x), expected, atol=1e-5)


@pytest.mark.parametrize("attention", [PositionAttention(16, FLAT), ChannelAttention()])
def test_attention_starts_as_nothing_and_learns_its_weight(attention):
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(attention(x), x)
    attention(x).square().sum().backward()
    assert attention.gamma.grad.abs() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_position_attention_never_holds_all_pairs(dtype):
    """Only the fused kernel may run, forward and backward; where it cannot, torch raises."""
    attention = PositionAttention(16, Layers()).to(dtype)
    x = torch.randn(1, 16, 8, 8, 8, dtype=dtype, requires_grad=True)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        attention(x).sum().backward()
    assert x.grad is not None


def test_the_autoencoder_codes_at_a_quarter_and_decodes_to_the_same():
    code, decoded = SemanticAutoencoder(8, FLAT)(torch.randn(2, 8, 16, 24))
    assert code.shape == (2, 32, 4, 6)
    assert decoded.shape == (2, 8, 16, 24)


@pytest.mark.parametrize(("dims", "size"), [(2, (64, 96)), (3, (32, 32, 64))])
def test_logits_have_the_images_size(dims, size):
    network = drawn(dims=dims).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, *size)).shape == (1, 3, *size)


def test_the_prediction_is_the_mean_of_the_four_refined_masks():
    network, image = drawn().train(), torch.randn(2, 1, 64, 64)
    supervised = network.supervised(image)
    assert len(supervised.logits) == 8
    assert supervised.weights == (1.0,) * 8
    assert torch.allclose(network(image), torch.stack(supervised.logits[4:]).mean(0), atol=1e-4)
    assert torch.allclose(network(image), supervised.prediction, atol=1e-4)
    assert not supervised.prediction.requires_grad


def test_the_networks_own_losses_are_weighted_as_published():
    image = torch.randn(1, 1, 64, 64)
    network = drawn().eval()
    parts = {}
    for name, weights in {
        "both": (0.25, 0.1), "guided": (1.0, 0.0), "reconstruction": (0.0, 1.0), "none": (0.0, 0.0)
    }.items():  # fmt: skip
        network.config = GuidedAttentionConfig(
            dims=2, width=8, guided_weight=weights[0], reconstruction_weight=weights[1]
        )
        parts[name] = float(network.supervised(image).extra.detach())
    assert GuidedAttentionConfig().guided_weight == 0.25
    assert GuidedAttentionConfig().reconstruction_weight == 0.1
    assert parts["guided"] > 0
    assert parts["reconstruction"] > 0
    assert parts["none"] == 0
    assert parts["both"] == pytest.approx(0.25 * parts["guided"] + 0.1 * parts["reconstruction"], rel=1e-5)


def test_reconstruction_moves_the_decoder_but_not_through_its_target():
    """With the target detached, the gradient is that of (decoded - constant)^2."""
    network, image = drawn(guided_weight=0.0, reconstruction_weight=1.0), torch.randn(1, 1, 64, 64)
    network.eval().supervised(image).extra.backward()
    last = network.autoencoders[1].out.bias.grad
    stages, multi_scale = network._stages(image)
    features = []
    handle = network.autoencoders[1].register_forward_hook(
        lambda _, args, out: features.append((args[0], out[1]))
    )
    for level, stage in enumerate(stages):
        network._refined(level, stage, multi_scale)
    handle.remove()
    by_hand = sum(
        2 * (decoded - wanted).mean(dim=(0, 2, 3)) / wanted.shape[1] for wanted, decoded in features
    )
    assert torch.allclose(last, by_hand, atol=1e-6)
    # and nothing flows back where only the target could carry it: the last refinement's features
    assert network.plain_heads[0].weight.grad is None


def test_gradients_reach_every_parameter_so_no_module_is_idle():
    network = drawn().train()
    supervised = network.supervised(torch.randn(2, 1, 64, 64))
    (sum(logits.square().mean() for logits in supervised.logits) + supervised.extra).backward()
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]


def test_more_positions_than_the_bound_are_refused_before_anything_is_computed():
    network = drawn(dims=3, max_positions=511).eval()
    with FlopCounterMode(display=False) as counter, pytest.raises(ValueError, match=r"512 positions .*511"):
        network(torch.zeros(1, 1, 32, 32, 32))
    assert counter.get_total_flops() == 0
    with pytest.raises(ValueError, match="multiple of 32"):
        network(torch.zeros(1, 1, 32, 32, 48))
    GuidedAttentionConfig(max_positions=512).require_size((32, 32, 32))


@pytest.mark.parametrize("fields", [{"width": 4}, {"depth": 20}, {"guided_weight": -1}, {"max_positions": 0}])
def test_impossible_configs_are_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        GuidedAttentionConfig(**fields)
