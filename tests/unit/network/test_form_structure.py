"""The written-up networks by name: each recipe in pipelines/variants/ is made of what its row says.

Counts are in test_published_forms.py; many a wrong network has the right one.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from ct_attn.losses import LossConfig, SegmentationLoss
from ct_attn.network.attention_unet import AttentionUNet
from ct_attn.network.build import build_network
from ct_attn.network.guided_attention import ChannelAttention, GuidedAttention, PositionAttention
from ct_attn.network.slicewise import core_of
from ct_attn.recipe import read_recipe

VARIANTS = Path(__file__).resolve().parents[3] / "pipelines" / "variants"
ONE_TARGET = "targets={pancreas: [pancreas]}"
SOFTMAX = "network.gate_activation=softmax"
GATED = ["slides_3d", "reimplementation_3d", "additive_2d", "report_2d", "article_2d"]


def built(recipe, *overrides, device="cpu"):
    read = read_recipe(VARIANTS / f"{recipe}.yaml", overrides)
    with torch.device(device):
        network = build_network(read.network, in_channels=1, n_classes=read.n_outputs, slices=read.slices)
    return core_of(network)


def listed(recipe, *overrides) -> AttentionUNet:
    """To be read, not to be run: on the meta device, where nothing is drawn."""
    network = built(recipe, *overrides, device="meta")
    assert isinstance(network, AttentionUNet)
    return network


def drawn_image(network, batch=1):
    return torch.randn(batch, 3, 32, 32) if network.layers.dims == 2 else torch.randn(batch, 1, 16, 16, 16)


def layers(part) -> list[str]:
    """What ``part`` is made of, layer by layer: ``Conv3d 1-16 3x3x1``, ``ReLU``."""
    empty = (nn.Identity, nn.ModuleList, nn.Sequential)
    return [
        described(one) for one in part.modules() if not list(one.children()) and not isinstance(one, empty)
    ]


def described(layer) -> str:
    kind = type(layer).__name__
    match layer:
        case nn.Conv2d() | nn.Conv3d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            stride = "" if set(layer.stride) == {1} else f" by {sides(layer.stride)}"
            bias = "" if layer.bias is not None else ", no bias"
            return f"{kind} {layer.in_channels}-{layer.out_channels} {sides(layer.kernel_size)}{stride}{bias}"
        case nn.BatchNorm2d() | nn.BatchNorm3d():
            return f"{kind} {layer.num_features}"
        case nn.MaxPool2d() | nn.MaxPool3d():
            assert layer.stride == layer.kernel_size
            return f"{kind} {sides(layer.kernel_size)}"
        case nn.LeakyReLU():
            return f"{kind} {layer.negative_slope}"
    return kind


def sides(numbers) -> str:
    return "x".join(map(str, numbers))


def double(convolution, coming, width, *behind) -> list[str]:
    """Two of ``convolution``, the first from ``coming`` channels, with what is behind each."""
    return [
        layer
        for channels in (coming, width)
        for layer in (convolution.format(f"{channels}-{width}"), *behind)
    ]


def assert_levels(network, *, coming, widths, convolution, pooling, behind):
    """Encoder and center are double convolutions, ``pooling`` between them."""
    levels = [*network.encoder, network.center]
    for level, (before, width) in enumerate(pairwise((coming, *widths))):
        behind_it = [layer.format(width) for layer in behind]
        assert layers(levels[level]) == double(convolution, before, width, *behind_it)
    assert len(levels) == len(widths)
    assert [layers(pool) for pool in network.pools] == [[pooling]] * (len(widths) - 1)


def test_the_slides_convolve_and_pool_every_slice_by_itself():
    network, widths = listed("slides_3d"), (16, 32, 64, 128, 256)
    behind = ("BatchNorm3d {}", "ReLU")
    assert_levels(
        network,
        coming=1,
        widths=widths,
        convolution="Conv3d {} 3x3x1",
        pooling="MaxPool3d 2x2x1",
        behind=behind,
    )
    for level, (width, below) in enumerate(pairwise(widths)):
        assert layers(network.raisers[level]) == [f"ConvTranspose3d {below}-{width} 4x4x1 by 2x2x1"]
        assert layers(network.decoder[level]) == double(
            "Conv3d {} 3x3x1", 2 * width, width, f"BatchNorm3d {width}", "ReLU"
        )
    assert layers(network.heads) == ["Conv3d 16-4 1x1x1"]
    assert layers(network.stage_heads) == layers(network.fuse) == []


def test_the_slides_gates_have_a_grid_of_blocks_and_one_convolution_behind():
    network = listed("slides_3d")
    assert network.gated_levels == (1, 2, 3)
    assert layers(network.gating) == ["Conv3d 256-128 1x1x1", "BatchNorm3d 128", "ReLU"]
    for gate, width in zip(network.gates, (32, 64, 128), strict=True):
        assert layers(gate.signal) == layers(gate.raiser) == layers(gate.combine) == []
        assert layers(gate.theta) == [f"Conv3d {width}-{width} 2x2x2 by 2x2x2, no bias"]
        assert layers(gate.phi) == [f"Conv3d 128-{width} 1x1x1"]
        assert layers(gate.psi) == [f"Conv3d {width}-1 1x1x1"]
        assert layers(gate.transform) == [f"Conv3d {width}-{width} 1x1x1", f"BatchNorm3d {width}"]


def test_the_reimplementation_ends_its_last_double_convolution_in_the_classes():
    network, widths = listed("reimplementation_3d"), (32, 64, 128, 256)
    behind = ("BatchNorm3d {}", "ReLU")
    assert_levels(
        network,
        coming=1,
        widths=widths,
        convolution="Conv3d {} 3x3x3",
        pooling="MaxPool3d 2x2x2",
        behind=behind,
    )
    for level, (width, below) in enumerate(pairwise(widths)):
        assert layers(network.raisers[level]) == [f"ConvTranspose3d {below}-{width} 2x2x2 by 2x2x2"]
    for level, width in ((1, 64), (2, 128)):
        assert layers(network.decoder[level]) == double(
            "Conv3d {} 3x3x3", 2 * width, width, f"BatchNorm3d {width}", "ReLU"
        )
    assert layers(network.decoder[0]) == ["Conv3d 64-32 3x3x3", "BatchNorm3d 32", "ReLU"]
    assert layers(network.heads[0]) == ["Conv3d 32-4 3x3x3", "BatchNorm3d 4"]


@pytest.mark.parametrize("overrides", [(), (SOFTMAX,)], ids=["sigmoid", "softmax"])
def test_the_reimplementation_gates_every_skip_by_a_signal_of_its_own(overrides):
    network = listed("reimplementation_3d", *overrides)
    assert network.gated_levels == (0, 1, 2)
    assert layers(network.gating) == []
    for gate, (width, below) in zip(network.gates, pairwise((32, 64, 128, 256)), strict=True):
        assert layers(gate.signal) == [f"Conv3d {below}-{below} 1x1x1", f"BatchNorm3d {below}", "ReLU"]
        assert layers(gate.theta) == [f"Conv3d {width}-{width} 2x2x2 by 2x2x2, no bias"]
        assert layers(gate.phi) == [f"Conv3d {below}-{width} 1x1x1"]
        assert layers(gate.psi) == [f"Conv3d {width}-1 1x1x1"]
        assert layers(gate.raiser) == layers(gate.transform) == layers(gate.combine) == []


def test_the_additive_form_normalises_its_encoder_only():
    network, widths = listed("additive_2d", ONE_TARGET), (32, 64, 128, 256, 512)
    behind = ("BatchNorm2d {}", "LeakyReLU 0.2")
    assert_levels(
        network,
        coming=3,
        widths=widths,
        convolution="Conv2d {} 3x3, no bias",
        pooling="MaxPool2d 2x2",
        behind=behind,
    )
    for level, (width, below) in enumerate(pairwise(widths)):
        assert layers(network.raisers[level]) == [f"ConvTranspose2d {below}-{width} 2x2 by 2x2"]
        # The row leaves the decoder's activation open; here it is the encoder's.
        assert layers(network.decoder[level]) == double("Conv2d {} 3x3", 2 * width, width, "LeakyReLU 0.2")
    assert layers(network.heads) == ["Conv2d 32-1 1x1"]
    assert layers(network.stage_heads) == layers(network.fuse) == []


def test_the_additive_gates_pool_the_skip_and_raise_one_alpha_to_its_channels():
    network = listed("additive_2d")
    assert network.gated_levels == (0, 1, 2, 3)
    assert layers(network.gating) == []
    for gate, (width, below) in zip(network.gates, pairwise((32, 64, 128, 256, 512)), strict=True):
        assert layers(gate.theta) == ["MaxPool2d 2x2", f"Conv2d {width}-{width} 1x1"]
        assert layers(gate.phi) == [f"Conv2d {below}-{width} 1x1"]
        assert layers(gate.psi) == [f"Conv2d {width}-1 1x1"]
        assert layers(gate.raiser) == [f"ConvTranspose2d 1-{width} 2x2 by 2x2"]
        assert layers(gate.signal) == layers(gate.transform) == layers(gate.combine) == []


@pytest.mark.parametrize(
    ("recipe", "widths", "head"),
    [
        ("report_2d", (64, 128, 256, 512), "Conv2d 64-1 1x1"),
        ("report_2d_schedule", (64, 128, 256, 512), "Conv2d 64-1 1x1"),
        ("article_2d", (64, 128, 256, 512, 1024), "Conv2d 64-2 1x1"),  # softmax: background has a channel
    ],
)
def test_report_and_article_raise_without_a_convolution(recipe, widths, head):
    network = listed(recipe, ONE_TARGET)
    behind = ("BatchNorm2d {}", "ReLU")
    assert_levels(
        network, coming=3, widths=widths, convolution="Conv2d {} 3x3", pooling="MaxPool2d 2x2", behind=behind
    )
    assert not len(network.raisers)
    for level, (width, below) in enumerate(pairwise(widths)):
        assert layers(network.decoder[level]) == double(
            "Conv2d {} 3x3", width + below, width, f"BatchNorm2d {width}", "ReLU"
        )
    assert layers(network.heads) == [head]
    assert layers(network.stage_heads) == layers(network.fuse) == []


@pytest.mark.parametrize("recipe", ["report_2d", "report_2d_schedule"])
def test_the_reports_gates_normalise_theta_and_phi_and_emit_a_coefficient_per_channel(recipe):
    network = listed(recipe)
    assert network.gated_levels == (0, 1, 2)
    assert layers(network.gating) == []
    for gate, (width, below) in zip(network.gates, pairwise((64, 128, 256, 512)), strict=True):
        assert layers(gate.theta) == [f"Conv2d {width}-{width} 1x1", f"BatchNorm2d {width}"]
        assert layers(gate.phi) == [f"Conv2d {below}-{width} 1x1", f"BatchNorm2d {width}"]
        assert layers(gate.psi) == [f"Conv2d {width}-{width} 1x1"]
        assert layers(gate.signal) == layers(gate.raiser) == []
        assert layers(gate.transform) == layers(gate.combine) == []


def test_the_articles_gates_normalise_all_parts_and_have_half_the_skips_channels_inside():
    network = listed("article_2d")
    assert network.gated_levels == (0, 1, 2, 3)
    assert layers(network.gating) == []
    for gate, (width, below) in zip(network.gates, pairwise((64, 128, 256, 512, 1024)), strict=True):
        assert layers(gate.theta) == [f"Conv2d {width}-{width // 2} 1x1", f"BatchNorm2d {width // 2}"]
        assert layers(gate.phi) == [f"Conv2d {below}-{width // 2} 1x1", f"BatchNorm2d {width // 2}"]
        assert layers(gate.psi) == [f"Conv2d {width // 2}-1 1x1", "BatchNorm2d 1"]
        assert layers(gate.signal) == layers(gate.raiser) == []
        assert layers(gate.transform) == layers(gate.combine) == []


def seen_by_gates(network, image):
    """Skip and gating signal of every gate while ``network`` runs, finest first."""
    seen = {}
    for level in network.gated_levels:
        network.gate(level).register_forward_pre_hook(
            lambda _, arguments, level=level: seen.update({level: arguments})
        )
    network(image)
    return [seen[level] for level in network.gated_levels]


@pytest.mark.parametrize("recipe", GATED)
@torch.no_grad()
def test_a_gate_sees_its_skip_and_what_its_row_feeds_it(recipe):
    network = built(recipe).eval()
    image = drawn_image(network)
    skips, bottom = network.encode(image)
    below = [*network.decode(skips, bottom)[1:], bottom]
    for level, (skip, signal) in zip(network.gated_levels, seen_by_gates(network, image), strict=True):
        assert torch.equal(skip, skips[level])
        # The slides feed all gates from the center, the others each from one level below.
        assert torch.equal(signal, network.gating(bottom) if recipe == "slides_3d" else below[level])


@pytest.mark.parametrize("recipe", GATED)
@torch.no_grad()
def test_what_a_gate_lets_through_is_alpha_times_the_skip(recipe):
    network = built(recipe).eval()
    for gate, (skip, signal) in zip(network.gates, seen_by_gates(network, drawn_image(network)), strict=True):
        passed = skip * gate.coefficients(skip, signal)
        # Only the slides have W behind it.
        assert torch.equal(gate(skip, signal), gate.transform(passed) if recipe == "slides_3d" else passed)


@pytest.mark.parametrize(
    ("recipe", "per_channel"),
    [("slides_3d", False), ("reimplementation_3d", False), ("report_2d", True), ("article_2d", False)],
)
@torch.no_grad()
def test_alpha_is_a_sigmoid_applied_once(recipe, per_channel):
    """The listing of the article applies it twice, that of the re-implementation forgets it."""
    network = built(recipe).eval()
    for gate, (skip, signal) in zip(network.gates, seen_by_gates(network, drawn_image(network)), strict=True):
        alpha = gate.coefficients(skip, signal)
        assert alpha.shape == (1, skip.shape[1] if per_channel else 1, *skip.shape[2:])
        assert 0 <= alpha.min() < alpha.max() <= 1
        *_, last = gate.psi.modules()
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, -4.0)
        assert gate.coefficients(skip, signal).numpy() == pytest.approx(1 / (1 + math.exp(4)), abs=1e-6)


@torch.no_grad()
def test_the_additive_alpha_is_a_sigmoid_raised_by_a_transposed_convolution_and_nothing_more():
    network = built("additive_2d").eval()
    alphas = []
    for gate, (skip, signal) in zip(network.gates, seen_by_gates(network, drawn_image(network)), strict=True):
        gate.raiser.register_forward_pre_hook(lambda _, arguments: alphas.append(arguments[0]))
        coefficients = gate.coefficients(skip, signal)
        pooled = [side // 2 for side in skip.shape[2:]]
        assert alphas[-1].shape == (1, 1, *pooled)
        assert 0 <= alphas[-1].min() <= alphas[-1].max() <= 1
        raised = functional.conv_transpose2d(alphas[-1], gate.raiser.weight, gate.raiser.bias, stride=2)
        assert torch.equal(coefficients, raised)
        assert coefficients.shape == skip.shape
        assert coefficients.min() < 0  # no second activation
        nn.init.zeros_(gate.psi.weight)
        nn.init.constant_(gate.psi.bias, -4.0)
        gate.coefficients(skip, signal)
        assert alphas[-1].numpy() == pytest.approx(1 / (1 + math.exp(4)), abs=1e-6)


@torch.no_grad()
def test_the_reimplementations_softmax_shares_out_one_unit_over_a_gates_grid():
    network = built("reimplementation_3d", SOFTMAX).eval()
    for gate, (skip, signal) in zip(network.gates, seen_by_gates(network, drawn_image(network)), strict=True):
        alpha = gate.coefficients(skip, signal)
        assert alpha.shape == (1, 1, *skip.shape[2:])
        assert 0 <= alpha.min() < alpha.max() <= 1
        # Each voxel of the gate's grid is spread over the eight of the skip's that made it.
        assert alpha.sum().item() == pytest.approx(8, rel=1e-4)


@pytest.mark.parametrize("recipe", ["report_2d", "article_2d"])
@torch.no_grad()
def test_a_gate_on_the_skips_grid_normalises_the_signal_after_raising_it(recipe):
    network = built(recipe).eval()
    taken = []
    for gate, (skip, signal) in zip(network.gates, seen_by_gates(network, drawn_image(network)), strict=True):
        gate.phi.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
        gate.coefficients(skip, signal)
        raised = functional.interpolate(signal, size=skip.shape[2:], mode="bilinear", align_corners=False)
        assert torch.equal(taken[-1], raised)


@pytest.mark.parametrize("recipe", GATED)
@torch.no_grad()
def test_a_decoder_level_joins_the_gated_skip_and_what_is_raised_from_below(recipe):
    network = built(recipe).eval()
    image = drawn_image(network)
    joined = {}
    for level, part in enumerate(network.decoder):
        part.register_forward_pre_hook(lambda _, arguments, level=level: joined.update({level: arguments[0]}))
    gated = {
        level: network.gate(level)(*seen)
        for level, seen in zip(network.gated_levels, seen_by_gates(network, image), strict=True)
    }
    skips, bottom = network.encode(image)
    below = [*network.decode(skips, bottom)[1:], bottom]
    for level, skip in enumerate(skips):
        if recipe in ("report_2d", "article_2d"):
            size = skip.shape[2:]
            raised = functional.interpolate(below[level], size=size, mode="bilinear", align_corners=False)
        else:
            raised = network.raisers[level](below[level])
        assert torch.equal(joined[level], torch.cat([gated.get(level, skip), raised], dim=1))


def test_the_reimplementation_compares_every_stages_output_with_the_labels():
    network = built("reimplementation_3d").train()
    image = drawn_image(network, batch=2)
    skips, bottom = network.encode(image)
    supervised = network.supervised(image)
    decoder, stages = supervised.logits[:3], supervised.logits[3:]
    assert [tuple(logits.shape) for logits in decoder] == [(2, 4, side, side, side) for side in (16, 8, 4)]
    assert [tuple(logits.shape) for logits in stages] == [(2, 4, side, side, side) for side in (16, 8, 4, 2)]
    assert layers(network.heads[1]) == ["Conv3d 64-4 1x1x1"]
    assert layers(network.heads[2]) == ["Conv3d 128-4 1x1x1"]
    assert layers(network.stage_heads) == [f"Conv3d {width}-4 1x1x1" for width in (32, 64, 128, 256)]
    # The stages' own output: what goes into the gates, not what comes out of them.
    for head, output, logits in zip(network.stage_heads, [*skips, bottom], stages, strict=True):
        assert torch.equal(logits, head(output))
    assert torch.equal(supervised.prediction, network(image))
    assert supervised.extra is None


def test_the_reimplementations_levels_count_half_of_the_next_finer_and_1_together():
    network = built("reimplementation_3d").train()
    weights = network.supervised(drawn_image(network, batch=2)).weights
    assert weights == pytest.approx([share / 29 for share in (8, 4, 2, 8, 4, 2, 1)])
    assert sum(weights) == pytest.approx(1)


def test_the_reimplementations_loss_reaches_the_head_of_every_stage():
    network = built("reimplementation_3d").train()
    supervised = network.supervised(drawn_image(network, batch=2))
    loss = SegmentationLoss(LossConfig())
    total = sum(
        weight * loss(logits, torch.randint(0, 4, (2, *logits.shape[2:])))
        for weight, logits in zip(supervised.weights, supervised.logits, strict=True)
    )
    total.backward()
    reached = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 1e-6
    }
    assert reached >= {
        "heads.0.0.weight", "heads.0.1.weight", "heads.1.weight", "heads.2.weight",
        *(f"stage_heads.{stage}.{part}" for stage in range(4) for part in ("weight", "bias")),
    }  # fmt: skip


def test_the_reimplementation_predicts_without_the_heads_of_its_stages():
    with_them = built("reimplementation_3d").eval()
    without = built("reimplementation_3d", "network.deep_supervision=none").eval()
    without.load_state_dict({name: with_them.state_dict()[name] for name in without.state_dict()})
    image = drawn_image(without)
    assert torch.equal(without(image), with_them(image))
    assert without.supervised(image).weights == (1.0,)


def test_guided_attention_refines_four_levels_twice():
    network = built("guided_attention_2d", device="meta")
    assert isinstance(network, GuidedAttention)
    assert [len(getattr(network.resnet.model, f"layer{stage}")) for stage in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert layers(network.resnet.model.conv1) == ["Conv2d 3-64 7x7 by 2x2, no bias"]
    for part, channels in zip(network.narrow, (256, 512, 1024, 2048), strict=True):
        assert layers(part) == [f"Conv2d {channels}-64 1x1", "BatchNorm2d 64", "ReLU"]
    assert layers(network.multi_scale) == ["Conv2d 256-64 1x1", "BatchNorm2d 64", "ReLU"]
    assert [len(step) for step in network.refinements] == [4, 4]
    for kind in (PositionAttention, ChannelAttention):
        assert sum(isinstance(module, kind) for module in network.modules()) == 8
    assert layers(network.heads) == layers(network.plain_heads) == ["Conv2d 64-4 1x1"] * 4


@torch.no_grad()
def test_guided_attention_joins_one_map_to_each_level_and_averages_four_masks():
    network = built("guided_attention_2d").eval()
    out_of, joined = {}, []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, arguments, result, name=name: out_of.update({name: result}))
    for refinement in network.refinements[0]:
        refinement.register_forward_pre_hook(lambda _, arguments: joined.append(arguments[0]))
    logits = network(torch.randn(1, 3, 64, 64))
    for level, features in enumerate(joined):
        narrowed = out_of[f"narrow.{level}"]
        raised = functional.interpolate(narrowed, size=(16, 16), mode="bilinear", align_corners=False)
        assert torch.allclose(features, torch.cat([raised, out_of["multi_scale"]], dim=1), atol=1e-5)
    masks = torch.stack([out_of[f"heads.{level}"] for level in range(4)])
    averaged = functional.interpolate(masks.mean(0), size=(64, 64), mode="bilinear", align_corners=False)
    assert len(joined) == 4
    assert torch.allclose(logits, averaged, atol=1e-5)
