from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from ct_attn.losses import LossConfig, SegmentationLoss
from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig
from ct_attn.network.unet import UNet, UNetConfig

NARROW = (2, 3, 4, 5, 6)
BOTH = [(UNet, UNetConfig), (AttentionUNet, AttentionUNetConfig)]


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def make(kind, config, widths=NARROW, n_classes=4):
    return kind(config(widths=widths), in_channels=1, n_classes=n_classes)


@pytest.mark.parametrize(
    ("widths", "n_classes", "parameters"),
    [
        ((16, 32, 64, 128, 256), 4, 5_888_004),
        ((16, 32, 64, 128, 256), 2, 5_887_466),
        ((16, 33, 67, 134, 268), 4, 6_444_328),
        ((21, 42, 85, 170, 341), 4, 10_403_190),
    ],
)
def test_parameter_counts_of_the_papers_networks(widths, n_classes, parameters):
    assert count(make(UNet, UNetConfig, widths, n_classes)) == parameters


def test_parameter_counts_of_every_part():
    network = UNet(UNetConfig(), in_channels=1, n_classes=4)
    assert [count(level) for level in network.encoder] == [7_440, 41_664, 166_272, 664_320]
    assert count(network.center) == 2_655_744
    assert [count(level) for level in network.decoder] == [27_744, 110_784, 442_752, 1_770_240]
    assert [count(head) for head in network.heads] == [68, 132, 260, 516]
    assert count(network.fuse) == 68


@pytest.mark.parametrize(("kind", "config"), BOTH)
@pytest.mark.parametrize("size", [(16, 16, 16), (48, 16, 32), (16, 48, 16), (32, 32, 48)])
def test_logits_have_the_images_size(kind, config, size):
    network = make(kind, config).eval()
    assert network(torch.randn(1, 1, *size)).shape == (1, 4, *size)


@pytest.mark.parametrize(("kind", "config"), BOTH)
@pytest.mark.parametrize("size", [(40, 48, 48), (48, 40, 48), (48, 48, 40), (8, 16, 16)])
def test_a_side_that_cannot_be_halved_four_times_is_refused(kind, config, size):
    with pytest.raises(ValueError, match=r"multiple of 16, got \(\d+, \d+, \d+\)"):
        make(kind, config)(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(("widths", "multiple"), [((4, 8), 2), ((4, 8, 16), 4), (NARROW, 16)])
def test_the_multiple_follows_from_the_levels(widths, multiple):
    network = make(UNet, UNetConfig, widths).eval()
    assert network.size_multiple == UNetConfig(widths=widths).size_multiple == (multiple,) * 3
    assert network(torch.zeros(1, 1, multiple, 2 * multiple, multiple)).shape[3] == 2 * multiple
    with pytest.raises(ValueError, match=f"multiple of {multiple}"):
        network(torch.zeros(1, 1, multiple, multiple, multiple + multiple // 2))


@pytest.mark.parametrize("widths", [(), (4,), (4, 0), (4, -8), (4, 8.5)])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(ValidationError, match="widths"):
        UNetConfig(widths=widths)


def cancelled_by_normalisation(network) -> set[str]:
    """Parameters whose gradient is 0 by design.

    A batch normalisation takes out whatever constant the convolution before it adds.
    The bias of a gate's ``transform`` normalisation reaches such a convolution
    pointwise, so it is taken out by the next one.
    """
    names = set()
    for name, module in network.named_modules():
        children = dict(module.named_children())
        if isinstance(children.get("1"), torch.nn.BatchNorm3d):
            names.add(f"{name}.0.bias")
        if name.endswith(".transform"):
            names.add(f"{name}.1.bias")
    return names


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_gradients_reach_every_parameter(kind, config):
    network = make(kind, config).double()
    labels = torch.randint(0, 4, (2, 32, 16, 16))
    SegmentationLoss(LossConfig())(network(torch.randn(2, 1, 32, 16, 16).double()), labels).backward()
    largest = {name: parameter.grad.abs().max().item() for name, parameter in network.named_parameters()}
    without = {name for name, value in largest.items() if value < 1e-11}
    assert without == cancelled_by_normalisation(network)


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_training_learns_a_patch_by_heart(kind, config):
    network = make(kind, config, widths=(4, 6, 8, 10, 12))
    image = torch.rand(1, 1, 32, 16, 16)
    labels = (torch.nn.functional.avg_pool3d(image, 5, stride=1, padding=2)[:, 0] > 0.45).long()
    loss_of = SegmentationLoss(LossConfig())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        loss = loss_of(network(image), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.75 * losses[0]


def test_every_scale_has_its_say_in_the_fused_logits():
    network = make(UNet, UNetConfig).eval()
    features = [torch.rand(1, width, 16 >> level, 16, 16) for level, width in enumerate(NARROW[:-1])]
    fused = network.predict(features)
    assert fused.shape == (1, 4, 16, 16, 16)
    for level in range(4):
        silenced = [torch.zeros_like(x) if at == level else x for at, x in enumerate(features)]
        assert not torch.allclose(network.predict(silenced), fused, atol=1e-4)


def test_the_largest_of_eight_voxels_goes_down():
    network = make(UNet, UNetConfig).eval()
    seen = []
    network.encoder[1].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    skips, _ = network.encode(torch.randn(1, 1, 16, 16, 32))
    blocks = skips[0].reshape(1, NARROW[0], 8, 2, 8, 2, 16, 2)
    assert torch.equal(seen[0], blocks.amax(dim=(3, 5, 7)))


def test_the_decoder_takes_the_skip_first_and_then_what_came_up():
    network = make(UNet, UNetConfig).eval()
    seen = {}
    for level, block in enumerate(network.decoder):
        block.register_forward_pre_hook(lambda _, arguments, level=level: seen.update({level: arguments[0]}))
    skips, bottom = network.encode(torch.randn(1, 1, 16, 16, 32))
    assert [skip.shape[2:] for skip in skips] == [(16, 16, 32), (8, 8, 16), (4, 4, 8), (2, 2, 4)]
    assert bottom.shape == (1, 6, 1, 1, 2)
    features = network.decode(skips, bottom)
    for level, skip in enumerate(skips):
        below = bottom if level == 3 else features[level + 1]
        raised = torch.nn.functional.interpolate(below, scale_factor=2, mode="trilinear", align_corners=False)
        assert torch.allclose(seen[level], torch.cat([skip, raised], dim=1), atol=1e-6)


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_the_same_seed_draws_the_same_network(kind, config):
    def drawn(seed):
        torch.manual_seed(seed)
        return make(kind, config).state_dict()

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["center.0.0.weight"], other["center.0.0.weight"])


@pytest.mark.parametrize(("kind", "config"), BOTH)
def test_all_of_a_network_is_drawn_from_the_released_distributions(kind, config):
    network = make(kind, config, widths=(8, 16, 32))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d):
            ratio = module.weight.std().item() / (2 / module.weight[0].numel()) ** 0.5
            few = 4 / module.weight.numel() ** 0.5  # how far so few draws may stray
            assert ratio == pytest.approx(1, abs=few)
        elif isinstance(module, torch.nn.BatchNorm3d):
            assert (module.weight - 1).abs().max() < 0.1
            assert module.weight.std() > 0.005
            assert not module.bias.any()
