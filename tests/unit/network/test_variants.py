"""Every option of the configs: what it builds, counts and computes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ct_attn.losses import LossConfig, SegmentationLoss
from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.unet import UNetConfig

NARROW = (2, 3, 4, 5, 6)
OPTIONS = [
    {},
    {"kernel_size": [3, 3, 1], "pool_size": [2, 2, 1]},
    {"pool_size": [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]},
    {"norm": "instance"},
    {"norm": "group"},
    {"activation": "leaky_relu"},
    {"upsampling": "transposed"},
    {"upsampling": "transposed", "pool_size": [2, 2, 1]},
    {"deep_supervision": "none"},
    {"align_corners": True},
    {"checkpointing": True},
    {"widths": (2, 3, 4, 5)},
    {"norm_bias": False, "activation": "leaky_relu", "negative_slope": 0.2, "decoder_norm": "none"},
    {"upsampling": "overlapping", "pool_size": [2, 2, 1]},
    {"deep_supervision": "stages", "head": "in_level"},
]
GATES = [
    {"gates_per_skip": 2},
    {"gates_per_skip": 2, "gating_signal": "shared"},
    {"gate_activation": "softmax"},
    {"gate_activation": "none"},
    {"gate_grid": "skip"},
    {"gate_grid": "skip", "gates_per_skip": 2, "gating_signal": "shared"},
    {"gated_skips": [0, 1, 2, 3]},
    {"gated_skips": [0, 2]},
    {"highway": True},
    {"gate_init": "pass_through"},
    {"gate_output": "transformed", "gating_signal": "shared"},
    {"gate_output": "plain", "gating_signal": "per_gate"},
    {"gate_theta": "pooled", "gate_coefficients": "raised", "gating_signal": "below"},
    {"gate_norms": ["theta", "phi"], "gate_coefficients": "per_channel", "gate_grid": "skip"},
    {"gate_norms": ["psi"], "gate_inner_share": 2, "gates_per_skip": 2},
]
#: A grid of its own, for poolings that leave the slices as they are.
OWN_GRID = {"gate_grid": [2, 2, 2], "pool_size": [2, 2, 1]}
CONFIGS = (
    [("attention_unet", OWN_GRID)]
    + [(kind, options) for kind in ("unet", "attention_unet") for options in OPTIONS]
    + [("attention_unet", options) for options in GATES]
)


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def config_of(kind, options):
    return {"unet": UNetConfig, "attention_unet": AttentionUNetConfig}[kind](**{"widths": NARROW, **options})


def make(kind, options):
    return build_network(config_of(kind, options), in_channels=1, n_classes=4)


def gated(**options) -> AttentionUNet:
    network = make("attention_unet", options)
    assert isinstance(network, AttentionUNet)
    return network.eval()


@pytest.mark.parametrize(
    ("options", "gating", "gates", "parameters"),
    [
        ({}, 66_304, [12_545, 49_665, 197_633], 6_214_151),
        ({"gates_per_skip": 2}, 66_304, [24_994, 99_138, 394_882], 6_473_322),
        (
            {"gates_per_skip": 2, "gating_signal": "shared"},
            33_152,
            [24_994 + 4_096, 99_138, 394_882 - 32_768],
            6_411_498,
        ),
    ],
)
def test_parameter_counts_of_the_published_gates(options, gating, gates, parameters):
    network = AttentionUNet(AttentionUNetConfig(**options), in_channels=1, n_classes=4)
    assert count(network.gating) == gating
    assert [count(gate) for gate in network.gates] == gates
    assert count(network) == parameters


def test_parameter_counts_of_the_slides_convolutions():
    """3x3x1 kernels; center 886,272 and gating 33,152 as counted from the authors' first 3D class."""
    config = AttentionUNetConfig(kernel_size=(3, 3, 1), pool_size=(2, 2, 1), gating_signal="shared")
    network = AttentionUNet(config, in_channels=1, n_classes=4)
    assert count(network.center) == 886_272
    assert count(network.gating) == 33_152
    assert count(network.encoder[0]) == 9 * 16 + 16 + 32 + 9 * 16 * 16 + 16 + 32


@pytest.mark.parametrize(("kind", "options"), CONFIGS)
def test_logits_have_the_images_size(kind, options):
    network = make(kind, options).eval()
    logits = network(torch.randn(1, 1, 32, 16, 16))
    assert logits.shape == (1, 4, 32, 16, 16)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("options", [{}, *({"dims": 2, **gates} for gates in GATES)])
@pytest.mark.parametrize("size", [(16, 48), (48, 32)])
def test_slices_have_logits_of_their_size(options, size):
    network = make("attention_unet", {"dims": 2, **options}).eval()
    assert network(torch.randn(2, 1, *size)).shape == (2, 4, *size)
    assert not any(isinstance(module, nn.Conv3d | nn.BatchNorm3d) for module in network.modules())


@pytest.mark.parametrize(
    "options",
    [{"norm": "instance"}, {"norm": "group"}, {"upsampling": "transposed"}, {"deep_supervision": "none"}],
)
def test_slices_go_through_every_layer(options):
    network = make("unet", {"dims": 2, **options})
    assert network(torch.randn(2, 1, 32, 48)).shape == (2, 4, 32, 48)


@pytest.mark.parametrize("side", [1, 3, 7])
def test_an_axis_that_is_never_pooled_may_have_any_length(side):
    network = make("unet", {"kernel_size": (3, 3, 1), "pool_size": (2, 2, 1)}).eval()
    assert network(torch.randn(1, 1, 16, 16, side)).shape == (1, 4, 16, 16, side)
    with pytest.raises(ValueError, match=r"multiple of \(16, 16, 1\), got \(16, 8, \d\)"):
        network(torch.randn(1, 1, 16, 8, side))


def test_flat_kernels_and_poolings_see_each_slice_by_itself():
    network = gated(kernel_size=(3, 3, 1), pool_size=(2, 2, 1))
    image = torch.randn(1, 1, 32, 16, 3)
    together = network(image)
    alone = torch.cat([network(image[..., k : k + 1]) for k in range(3)], dim=-1)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm3d), ("instance", nn.InstanceNorm3d), ("group", nn.GroupNorm)]
)
def test_one_kind_of_normalisation_runs_through(norm, kind):
    norms = [m for m in gated(norm=norm, gates_per_skip=2).modules() if "Norm" in type(m).__name__]
    norms = [m for m in norms if not isinstance(m, nn.Sequential)]
    assert norms
    assert all(type(m) is kind and m.weight is not None for m in norms)


def test_groups_are_eight_or_as_many_as_fit():
    norms = [
        m
        for m in make("unet", {"norm": "group", "widths": (6, 16, 21)}).modules()
        if isinstance(m, nn.GroupNorm)
    ]
    assert {(m.num_channels, m.num_groups) for m in norms} == {(6, 2), (16, 8), (21, 1)}


def test_leaky_relu_lets_a_hundredth_through_below_0():
    layer = make("unet", {"activation": "leaky_relu"}).encoder[0][0][2]
    assert torch.allclose(layer(torch.tensor([-1.0, 2.0])), torch.tensor([-0.01, 2.0]))


def test_corners_line_up_where_the_config_says_so():
    torch.manual_seed(1)
    default = gated()
    aligned = gated(align_corners=True)
    aligned.load_state_dict(default.state_dict())
    image = torch.randn(1, 1, 32, 32, 16)
    share = (default(image).argmax(1) != aligned(image).argmax(1)).float().mean()
    assert 0.005 < share < 0.5


def test_without_deep_supervision_the_finest_features_predict_alone():
    network = make("unet", {"deep_supervision": "none"}).eval()
    assert [name for name in network.state_dict() if "head" in name or "fuse" in name] == [
        "heads.0.weight",
        "heads.0.bias",
    ]
    features = [torch.rand(1, width, 8, 8, 8) for width in NARROW[:-1]]
    assert torch.equal(network.predict(features), network.heads[0](features[0]))


def test_transposed_upsampling_narrows_to_the_level_it_reaches():
    network = make("unet", {"upsampling": "transposed"})
    assert [tuple(r.weight.shape) for r in network.raisers] == [
        (above, width, 2, 2, 2) for width, above in pairwise(NARROW)
    ]
    assert network.decoder[0][0][0].in_channels == 2 * NARROW[0]


def behind_closed_psi(network) -> set[str]:
    """theta, phi and the gating signal, behind gates that start with psi weight 0."""
    names = {name for name, _ in network.named_parameters()}
    return {name for name in names if ".theta." in name or ".phi." in name or name.startswith("gating.")}


def cancelled_by_normalisation(network) -> set[str]:
    """Biases that a batch normalisation takes out again, directly or after a pointwise convolution."""
    names = set()
    for name, module in network.named_modules():
        if isinstance(dict(module.named_children()).get("1"), nn.BatchNorm3d):
            names.add(f"{name}.0.bias")
        if name.endswith(".transform") and isinstance(module, nn.Sequential):
            names.add(f"{name}.1.bias")
    return names


@pytest.mark.parametrize(
    ("kind", "options"),
    [("unet", options) for options in ({"upsampling": "transposed"}, {"deep_supervision": "none"})]
    + [("attention_unet", options) for options in (*GATES, {"checkpointing": True})],
)
def test_gradients_reach_every_parameter(kind, options):
    # Wide enough that no ReLU is dead by chance.
    network = make(kind, {"widths": (4, 6, 8, 6), **options, **without_level_3(options)}).double()
    labels = torch.randint(0, 4, (2, 32, 16, 16))
    SegmentationLoss(LossConfig())(network(torch.randn(2, 1, 32, 16, 16).double()), labels).backward()
    largest = {name: parameter.grad.abs().max().item() for name, parameter in network.named_parameters()}
    without = {name for name, value in largest.items() if value < 1e-12}
    expected = cancelled_by_normalisation(network)
    if options.get("gate_activation") == "softmax":
        expected |= {
            name for name in largest if name.endswith("psi.bias")
        }  # a constant adds nothing to a softmax
    if options.get("gate_output") == "transformed":  # and the decoder's ReLUs see what is added
        expected -= {name for name in largest if name.endswith("transform.1.bias")}
    if options.get("gate_init") == "pass_through":
        expected |= behind_closed_psi(network)
    assert without == expected


def without_level_3(options):
    return {"gated_skips": [0, 1, 2]} if options.get("gated_skips") == [0, 1, 2, 3] else {}


@pytest.mark.parametrize("grid", ["coarse", "skip"])
@pytest.mark.parametrize("gates", [1, 2])
def test_gates_that_start_open_have_one_alpha_everywhere(gates, grid):
    network = gated(gate_init="pass_through", gates_per_skip=gates, gate_grid=grid)
    maps = network.attention_maps(torch.randn(2, 1, 16, 32, 16))
    for alpha in maps.values():
        assert alpha.detach().numpy() == pytest.approx(0.953, abs=5e-4)
    released = gated().attention_maps(torch.randn(1, 1, 16, 32, 16))
    assert all(alpha.std() > 1e-3 for alpha in released.values())


@pytest.mark.parametrize(
    ("options", "levels", "gates"),
    [({}, [1, 2, 3], 1), ({"gates_per_skip": 2}, [1, 2, 3], 2), ({"gated_skips": [2, 0]}, [0, 2], 1)],
)
def test_attention_maps_lie_on_the_images_grid(options, levels, gates):
    network = gated(**options)
    image = torch.randn(2, 1, 32, 16, 16)
    maps = network.attention_maps(image)
    assert list(maps) == levels
    for alpha in maps.values():
        assert alpha.shape == (2, gates, 32, 16, 16)
        assert 0 < alpha.min() < alpha.max() < 1
    assert gated(dims=2).attention_maps(torch.randn(1, 1, 32, 16))[1].shape == (1, 1, 32, 16)


@pytest.mark.parametrize("options", GATES)
def test_attention_maps_are_what_the_forward_multiplied(options):
    network = gated(**options)
    seen = {}
    for level in network.gated_levels:
        gate = network.gate(level)
        gate.register_forward_pre_hook(
            lambda module, arguments, level=level: seen.update({level: module.coefficients(*arguments)})
        )
    image = torch.randn(1, 1, 16, 16, 32)
    network(image)
    maps = network.attention_maps(image)
    for level, alphas in seen.items():
        # Of one coefficient per channel the map is the mean.
        alpha = alphas if alphas.shape[1] == maps[level].shape[1] else alphas.mean(dim=1, keepdim=True)
        raised = nn.functional.interpolate(alpha, size=image.shape[2:], mode="trilinear", align_corners=False)
        assert torch.equal(maps[level], raised)


@pytest.mark.parametrize("options", GATES)
def test_a_shared_signal_comes_from_the_center_and_others_from_below(options):
    network = gated(**options)
    out_of, signals = {}, {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, arguments, result, name=name: out_of.update({name: result}))
    for level in network.gated_levels:
        network.gate(level).register_forward_pre_hook(
            lambda _, arguments, level=level: signals.update({level: arguments[1]})
        )
    network(torch.randn(1, 1, 16, 16, 32))
    for level, signal in signals.items():
        center = options.get("gating_signal") == "shared" or level == 3
        assert torch.equal(signal, out_of["gating" if center else f"decoder.{level + 1}"])


def test_a_highway_carries_most_of_the_skip_around_its_gate_at_first():
    network = gated(highway=True)
    skip, through = torch.randn(1, 3, 4, 4, 4), torch.randn(1, 3, 4, 4, 4)
    highway = network.highways[0]
    highway.share.weight.data.zero_()
    share = 1 / (1 + torch.tensor(1.0).exp())  # b = -1: 0.27 of the gated skip
    assert torch.allclose(highway(skip, through), share * through + (1 - share) * skip, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"gated_skips": []}, "no skip is gated"),
        ({"gated_skips": [4]}, "levels from 0 to 3, each once"),
        ({"gated_skips": [-1]}, "levels from 0 to 3"),
        ({"gated_skips": [1, 1]}, "each once"),
        ({"widths": (4, 8)}, "no skip is gated: give widths at least 3 items"),
        (
            {"gate_init": "pass_through", "gate_activation": "softmax"},
            "pass_through needs gate_activation sigmoid",
        ),
        ({"gate_init": "pass_through", "gate_activation": "none"}, "pass_through needs"),
        ({"gates_per_skip": 3}, "gates_per_skip"),
        ({"gate_grid": "fine"}, "gate_grid"),
        ({"gating_signal": "none"}, "gating_signal"),
    ],
)
def test_gates_that_do_not_fit_are_refused(options, what):
    with pytest.raises(ValidationError, match=what):
        config_of("attention_unet", options)


def test_two_levels_can_gate_their_only_skip():
    network = gated(widths=(4, 8), gated_skips=[0])
    assert list(network.attention_maps(torch.randn(1, 1, 4, 4, 4))) == [0]


@pytest.mark.parametrize("options", [{"gated_skips": [0, 1]}, {"gated_skips": [2]}])
def test_there_is_a_gating_signal_only_where_a_gate_takes_it(options):
    assert count(gated(**options).gating) == 0
