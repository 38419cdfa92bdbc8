from __future__ import annotations

import pytest
import torch

from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.monai_attention_unet import MonaiAttentionUNetConfig
from ct_attn.network.transfer import all_but, freeze, init_from
from ct_attn.network.unet import UNetConfig

NARROW = (2, 3, 4, 5, 6)


def unet(n_classes=4):
    return build_network(UNetConfig(widths=NARROW), in_channels=1, n_classes=n_classes)


def attention_unet(n_classes=4, **options):
    return build_network(AttentionUNetConfig(widths=NARROW, **options), in_channels=1, n_classes=n_classes)


def snapshot(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("options", "tensors"), [({}, 200), ({"gates_per_skip": 2}, 236)])
def test_every_tensor_of_a_unet_finds_its_place(options, tensors):
    source, target = unet(), attention_unet(**options)
    before, report = snapshot(target), init_from(target, source.state_dict())
    assert len(report.loaded) == 136
    assert set(report.loaded) == set(source.state_dict())
    assert report.reinitialised == report.unused == ()
    assert len(report.missing) == tensors - 136
    assert {name.split(".")[0] for name in report.missing} == {"gates", "gating"}
    after = target.state_dict()
    assert all(torch.equal(after[name], source.state_dict()[name]) for name in report.loaded)
    assert all(torch.equal(after[name], before[name]) for name in report.missing)
    assert report.summary() == f"136 tensors loaded, {tensors - 136} not in the weights"


def test_heads_of_other_classes_are_drawn_afresh_and_named():
    target = unet(n_classes=2)
    before, report = snapshot(target), init_from(target, unet(n_classes=4).state_dict())
    heads = [name for name in before if name.startswith(("heads.", "fuse."))]
    assert list(report.reinitialised) == heads
    assert len(heads) == 10
    assert len(report.loaded) == 126
    assert all(torch.equal(target.state_dict()[name], before[name]) for name in heads)
    assert "drawn afresh as their shape or meaning differs: heads.0.weight" in report.summary()


def test_heads_of_other_organs_can_be_left_as_drawn_though_they_fit():
    target = unet()
    before, report = snapshot(target), init_from(target, unet().state_dict(), fresh=target.class_parts)
    heads = [name for name in before if name.startswith(("heads.", "fuse."))]
    assert list(report.reinitialised) == heads
    assert all(torch.equal(target.state_dict()[name], before[name]) for name in heads)


def test_a_part_can_be_taken_alone():
    source, target = unet(), attention_unet()
    before, report = snapshot(target), init_from(target, source.state_dict(), only=["encoder", "decoder.1"])
    assert {name.rsplit(".", 3)[0] for name in report.loaded} == {
        *(f"encoder.{n}" for n in range(4)),
        "decoder.1",
    }
    assert len(report.loaded) + len(report.unused) == 136
    assert len(report.loaded) + len(report.missing) == 200
    assert torch.equal(target.state_dict()["center.0.0.weight"], before["center.0.0.weight"])
    assert "of the weights not used" in report.summary()


def test_gates_are_unused_in_a_unet():
    report = init_from(unet(), attention_unet().state_dict())
    assert len(report.loaded) == 136
    assert len(report.unused) == 64


def test_weights_of_nothing_known_are_refused():
    with pytest.raises(ValueError, match="none of the 1 tensors fits the network"):
        init_from(unet(), {"model.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="under encodr"):
        init_from(unet(), unet().state_dict(), only=["encodr"])


def trained(network):
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    network(torch.randn(2, 1, 16, 16, 32)).square().mean().backward()
    optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("parts", [["encoder"], ["center", "decoder.2"], ["gates", "gating"]])
def test_frozen_parts_keep_weights_and_statistics(parts):
    network = attention_unet()
    freeze(network, parts)
    before, after = snapshot(network), trained(network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(tuple(f"{part}." for part in parts))}
    assert frozen
    assert not changed & frozen
    assert {name for name in before if "running_mean" in name} - frozen <= changed


def test_frozen_parts_stay_frozen_when_the_network_is_put_into_a_bigger_one():
    network = attention_unet()
    freeze(network, ["encoder"])
    outer = torch.nn.Sequential(network).eval().train()
    assert not network.encoder[0][0][1].training
    assert network.center[0][1].training
    outer.eval()
    assert not network.center.training


def test_gates_first_and_then_all():
    network = attention_unet()
    freeze(network, all_but(network, ["gates", "gating"]))
    before, after = snapshot(network), trained(network)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"gates", "gating"}
    freeze(network, [])
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("name", ["gate", "", "encoder.9"])
def test_a_part_that_is_not_there_is_named(name):
    for chosen in (freeze, all_but):
        with pytest.raises(ValueError, match=f"part '{name}'; it has encoder, center"):
            chosen(attention_unet(), [name])


def test_the_peer_freezes_and_loads_alike():
    config = MonaiAttentionUNetConfig(widths=(2, 4, 6))
    source, target = (build_network(config, in_channels=1, n_classes=2) for _ in range(2))
    report = init_from(target, source.state_dict())
    assert report.missing == report.unused == report.reinitialised == ()
    freeze(target, ["model.model.0"])
    assert not target.train().model.model[0].training
