"""What must hold for a whole network: it moves with its image, and survives being saved and exported."""

from __future__ import annotations

import pytest
import torch

from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.guided_attention import GuidedAttentionConfig
from ct_attn.network.monai_attention_unet import MonaiAttentionUNetConfig
from ct_attn.network.resnet_unet import ResNetAttentionUNetConfig
from ct_attn.network.unet import UNetConfig

NARROW = (2, 3, 4, 5, 6)
#: A voxel of the logits depends on the image up to this far away, in voxels.
REACH = 112
FORMS = [
    UNetConfig(widths=NARROW),
    AttentionUNetConfig(widths=NARROW),
    AttentionUNetConfig(widths=NARROW, gates_per_skip=2, gating_signal="shared"),
    AttentionUNetConfig(widths=NARROW, gate_grid="skip", upsampling="transposed", gated_skips=(0, 1, 2, 3)),
]
OTHERS = [
    AttentionUNetConfig(widths=NARROW, gate_activation="softmax", highway=True),
    AttentionUNetConfig(widths=NARROW, deep_supervision="per_scale"),
    MonaiAttentionUNetConfig(widths=NARROW),
    ResNetAttentionUNetConfig(dims=2, finest_width=4),
    GuidedAttentionConfig(dims=2, width=8),
]


def drawn(config):
    return build_network(config, in_channels=1, n_classes=3).double().eval()


def drawn_image(config):
    size = (16, 16, 32) if config.dims == 3 else (32, 64)
    return torch.randn(1, 1, *size, dtype=torch.float64)


@pytest.mark.parametrize("config", FORMS)
def test_logits_move_with_the_image_away_from_borders(config):
    network = drawn(config)
    # The decoder's batch statistics make logits of about 1, so that 1e-9 says something.
    image = torch.randn(1, 1, 16, 16, 2 * REACH + 64, dtype=torch.float64)
    with torch.no_grad():
        here, there = network(image[..., :-16]), network(image[..., 16:])
    length = here.shape[-1]
    assert torch.allclose(
        here[..., 16 + REACH : length - REACH], there[..., REACH : length - REACH - 16], rtol=0, atol=1e-9
    )
    assert here.std() > 1e-3
    assert not torch.allclose(here[..., 16:32], there[..., :16], rtol=0, atol=1e-6)  # a border differs


def test_a_move_by_less_than_the_multiple_does_not_commute():
    network = drawn(FORMS[1])
    image = torch.randn(1, 1, 16, 16, 2 * REACH + 64, dtype=torch.float64)
    with torch.no_grad():
        here, there = network(image[..., :-32]), network(image[..., 8:-24])
    length = here.shape[-1]
    assert not torch.allclose(
        here[..., 8 + REACH : length - REACH], there[..., REACH : length - REACH - 8], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(widths=NARROW, dims=2),
        AttentionUNetConfig(widths=NARROW, dims=2),
        AttentionUNetConfig(widths=NARROW, dims=2, gates_per_skip=2, gate_grid="skip"),
        UNetConfig(widths=NARROW, dims=2, norm="instance"),
        UNetConfig(widths=(8, 8, 8), dims=2, norm="group"),
        AttentionUNetConfig(widths=NARROW, dims=2, gate_activation="softmax"),
        GuidedAttentionConfig(dims=2, width=8),
    ],
    ids=lambda config: f"{config.kind} {'sees the window' if config.depends_on_window else 'sees so far'}",
)
def test_only_networks_that_say_so_look_at_the_whole_window(config):
    """Whether one end of a window hears of the other decides whether its size may be chosen freely."""
    network = drawn(config)
    for module in network.modules():  # attention that starts at 0 counts
        if isinstance(getattr(module, "gamma", None), torch.nn.Parameter):
            torch.nn.init.constant_(module.gamma, 1.0)
    image = torch.rand(1, 1, 32, 2 * REACH + 32, dtype=torch.float64)
    changed = image.clone()
    changed[..., :16] = 1 - changed[..., :16]
    with torch.no_grad():
        difference = (network(image) - network(changed)).abs()
    assert difference[..., :16].max() > 1e-6
    hears = bool(difference[..., 16 + REACH :].max() > 1e-12)
    assert hears == config.depends_on_window


@pytest.mark.parametrize("config", FORMS + OTHERS)
def test_a_saved_network_has_the_same_logits(config, tmp_path):
    network = drawn(config)
    image = drawn_image(config)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = drawn(config)
    assert not torch.equal(other(image), network(image))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(image), network(image))


@pytest.mark.slow
@pytest.mark.parametrize("config", FORMS + OTHERS)
def test_an_exported_network_has_the_same_logits(config, tmp_path):
    network = drawn(config)
    image = drawn_image(config)
    torch.export.save(torch.export.export(network, (image,)), tmp_path / "network.pt2")
    exported = torch.export.load(tmp_path / "network.pt2").module()
    assert torch.allclose(exported(image), network(image), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("config", FORMS + OTHERS)
def test_a_network_compiles_as_one_graph(config):
    network = drawn(config)
    image = drawn_image(config)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(image), network(image), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_compiled_network_has_the_same_logits():
    """Through the C++ compiler, which takes its time, and therefore one small network only."""
    network = drawn(AttentionUNetConfig(widths=(2, 3), gated_skips=(0,))).float()
    image = torch.randn(1, 1, 8, 8, 16)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True)
        assert torch.allclose(compiled(image), network(image), rtol=0, atol=1e-5)
