"""The written-up networks by name: each recipe in pipelines/variants/ has the parameters of its listing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ct_attn.network.attention_gate import AttentionGate
from ct_attn.network.attention_unet import AttentionUNet
from ct_attn.network.blocks import Layers
from ct_attn.network.build import build_network
from ct_attn.network.gate_form import GateForm
from ct_attn.network.slicewise import core_of
from ct_attn.recipe import read_recipe

VARIANTS = Path(__file__).resolve().parents[3] / "pipelines" / "variants"
ONE_TARGET = "targets={pancreas: [pancreas]}"
#: One grey channel in and four logits out: no neighbours, softmax over background and three targets.
GREY_4 = ("slices.neighbours=1", "loss.activation=softmax")


#: Recipe, changes to it, parameters.
COUNTS = [
    ("slides_3d", (), 2_722_535),
    ("slides_3d", ("network.upsampling=linear",), 2_221_815),
    ("reimplementation_3d", (ONE_TARGET, "network.deep_supervision=none"), 5_879_337),
    (
        "reimplementation_3d",
        (ONE_TARGET, "network.deep_supervision=none", "network.upsampling=linear"),
        6_115_657,
    ),
    # Class maps of encoder and center, and of two decoder levels: they are for training only.
    ("reimplementation_3d", (ONE_TARGET,), 5_879_337 + 2 * (32 + 64 + 128 + 256 + 4) + 2 * (64 + 128 + 2)),
    ("additive_2d", (ONE_TARGET,), 8_027_045),
    ("additive_2d", GREY_4, 8_026_568),
    ("report_2d", (ONE_TARGET,), 8_135_745),
    ("report_2d", GREY_4, 8_134_788),
    ("report_2d_schedule", (ONE_TARGET,), 8_135_745),
    # No count is published of these; so they were when written.
    ("article_2d", (), 31_916_528),
    ("guided_attention_2d", (), 39_796_144),
    ("unet_2_5d", (), 1_966_884),
    ("attention_unet_2_5d", (), 2_207_015),
    ("resnet18_2_5d", (), 15_390_300),
]


def network_of(recipe, *overrides):
    read = read_recipe(VARIANTS / f"{recipe}.yaml", overrides)
    return core_of(build_network(read.network, in_channels=1, n_classes=read.n_outputs, slices=read.slices))


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("recipe", "overrides", "parameters"), COUNTS)
def test_a_form_has_the_parameters_of_its_listing(recipe, overrides, parameters):
    assert count(network_of(recipe, *overrides)) == parameters


@pytest.mark.parametrize(
    ("recipe", "gates"),
    [
        ("slides_3d", [13_473, 45_377, 164_481]),
        ("reimplementation_3d", [14_593, 57_857, 230_401]),
        ("additive_2d", [3_329, 12_801, 50_177, 198_657]),
        ("report_2d", [16_832, 66_432, 263_936]),
        ("article_2d", [6_371, 25_027, 99_203, 395_011]),
    ],
)
def test_a_forms_gates_have_the_parameters_of_its_listing(recipe, gates):
    network = network_of(recipe)
    assert isinstance(network, AttentionUNet)
    assert [count(gate) for gate in network.gates] == gates


def test_the_slides_have_one_gating_signal_and_the_counted_center():
    network = network_of("slides_3d")
    assert count(network.gating) == 33_152
    assert count(network.center) == 886_272
    assert [tuple(raiser.kernel_size) for raiser in network.raisers] == [(4, 4, 1)] * 4
    assert [tuple(raiser.stride) for raiser in network.raisers] == [(2, 2, 1)] * 4
    assert all(tuple(gate.theta.stride) == (2, 2, 2) for gate in network.gates)


@pytest.mark.parametrize(
    ("channels", "parameters"), [(64, 6_371), (128, 25_027), (256, 99_203), (512, 395_011)]
)
def test_the_articles_gate_takes_signals_twice_as_wide(channels, parameters):
    form = GateForm(stride=1, inner_share=2, norms=("theta", "phi", "psi"), output="plain")
    assert count(AttentionGate(channels, 2 * channels, form=form, layers=Layers(dims=2))) == parameters


def test_every_form_here_is_counted():
    assert {recipe for recipe, _, _ in COUNTS} == {path.stem for path in VARIANTS.glob("*.yaml")}
