from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from ct_attn.network.attention_gate import AdditiveAttention
from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig
from ct_attn.network.unet import UNet, UNetConfig

NARROW = AttentionUNetConfig(widths=(2, 3, 4, 5, 6))


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def network() -> AttentionUNet:
    return AttentionUNet(NARROW, in_channels=1, n_classes=4).eval()


def test_parameter_counts_of_the_released_network():
    released = AttentionUNet(AttentionUNetConfig(), in_channels=1, n_classes=4)
    assert count(released) == 6_214_151
    assert count(released.gating) == 66_304
    assert [count(gate) for gate in released.gates] == [12_545, 49_665, 197_633]
    assert [count(level) for level in released.encoder] == [7_440, 41_664, 166_272, 664_320]
    assert count(released.center) == 2_655_744
    assert [count(level) for level in released.decoder] == [27_744, 110_784, 442_752, 1_770_240]
    assert [count(head) for head in released.heads] == [68, 132, 260, 516]
    assert count(released.fuse) == 68


def test_it_is_a_unet_with_gates():
    """Of the 200 tensors the released network has, 136 are a U-Net's."""
    gated = AttentionUNet(AttentionUNetConfig(), in_channels=1, n_classes=4).state_dict()
    plain = UNet(UNetConfig(), in_channels=1, n_classes=4).state_dict()
    assert len(gated) == 200
    assert len(plain) == 136
    assert all(gated[name].shape == tensor.shape for name, tensor in plain.items())
    assert {name.split(".")[0] for name in set(gated) - set(plain)} == {"gates", "gating"}


def watched(watched_network: AttentionUNet) -> tuple[dict, dict]:
    """What went into and came out of the parts, once the network has run."""
    into, out_of = {}, {}

    def note(name, arguments, result):
        into[name], out_of[name] = arguments, result

    for name, module in watched_network.named_modules():
        module.register_forward_hook(lambda _, arguments, result, name=name: note(name, arguments, result))
    return into, out_of


def test_each_gate_takes_its_skip_and_what_lies_one_level_below():
    gated = network()
    into, out_of = watched(gated)
    gated(torch.randn(1, 1, 32, 16, 16))
    assert torch.equal(into["gating"][0], out_of["center"])
    for gate, below in enumerate(["decoder.2", "decoder.3", "gating"]):
        skip, signal = into[f"gates.{gate}"]
        assert torch.equal(skip, out_of[f"encoder.{gate + 1}"])
        assert torch.equal(signal, out_of[below])


def test_the_gated_skips_reach_the_decoder_and_the_top_one_is_not_gated():
    gated = network()
    into, out_of = watched(gated)
    gated(torch.randn(1, 1, 32, 16, 16))
    assert len(gated.gates) == 3
    assert torch.equal(into["decoder.0"][0][:, :2], out_of["encoder.0"])
    for level in (1, 2, 3):
        skip = into[f"decoder.{level}"][0][:, : NARROW.widths[level]]
        assert torch.equal(skip, out_of[f"gates.{level - 1}"])


def test_upsampled_features_are_the_ungated_ones():
    """The gating signal drives gates only; the deepest decoder level raises the center itself."""
    gated = network()
    into, out_of = watched(gated)
    gated(torch.randn(1, 1, 32, 16, 16))
    raised = torch.nn.functional.interpolate(
        out_of["center"], scale_factor=2, mode="trilinear", align_corners=False
    )
    assert torch.allclose(into["decoder.3"][0][:, NARROW.widths[3] :], raised, atol=1e-6)


def test_alpha_of_every_gate_lies_between_0_and_1():
    gated = network()
    into, _ = watched(gated)
    gated(torch.randn(1, 1, 32, 16, 16))
    for gate in range(3):
        skip, signal = into[f"gates.{gate}"]
        alpha = gated.gates[gate].coefficients(skip, signal)
        assert alpha.shape == (1, 1, *skip.shape[2:])
        assert 0 < alpha.min() < alpha.max() < 1


def test_closed_gates_silence_their_skips_but_not_the_image():
    gated = network()
    image = torch.randn(1, 1, 32, 16, 16)
    opened = gated(image)
    for gate in gated.gates:
        gate.combine.register_forward_hook(lambda *hooked: torch.zeros_like(hooked[2]))
    closed = gated(image)
    assert not torch.allclose(closed, opened, atol=1e-3)
    assert not torch.allclose(closed, gated(image + 1), atol=1e-3)


def test_two_levels_have_no_skip_to_gate():
    with pytest.raises(ValidationError, match="at least 3 items"):
        AttentionUNetConfig(widths=(4, 8))
    assert len(AttentionUNet(AttentionUNetConfig(widths=(4, 6, 8)), in_channels=1, n_classes=2).gates) == 1


@pytest.mark.parametrize("options", [{}, {"gates_per_skip": 2}, {"gate_coefficients": "per_channel"}])
def test_features_are_what_a_gate_takes_and_what_it_hands_on(options):
    net = AttentionUNet(NARROW.model_copy(update=options), in_channels=1, n_classes=4).eval()
    image = torch.rand(1, 1, 32, 32, 16)
    gates = [
        module for gate in net.gates for module in gate.modules() if isinstance(module, AdditiveAttention)
    ]
    taken, handed_on = {}, {}
    for gate in gates:
        gate.theta.register_forward_pre_hook(lambda _, given, gate=gate: taken.update({gate: given[0]}))
        gate.transform.register_forward_pre_hook(
            lambda _, given, gate=gate: handed_on.update({gate: given[0]})
        )
    with torch.no_grad():
        net(image)
        before, alpha, after = net.stacked_features(image).reshape(len(gates), 3, 32, 32, 16).unbind(1)
        assert torch.equal(alpha, net.stacked_attention(image)[0])
    for place, gate in enumerate(gates):
        for shown, features in ((before, taken), (after, handed_on)):
            mean = features[gate].abs().mean(dim=1, keepdim=True)
            assert torch.allclose(shown[place], net.layers.resample(mean, (32, 32, 16))[0, 0], atol=1e-6)
