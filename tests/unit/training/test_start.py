from __future__ import annotations

import pytest
import torch

from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.errors import UserError
from ct_attn.network.build import build_network
from ct_attn.network.resnet import ResNetEncoder
from ct_attn.training.start import Start, take_weights
from tests.cohorts import tiny_recipe

UNET = ("network.kind=unet",)
RESNET = ("network={kind: resnet_attention_unet, finest_width: 4}", "training.patch_size=[32,32,32]")


def network_of(recipe):
    return build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes)


@pytest.fixture
def unet_model(tmp_path):
    recipe = tiny_recipe(*UNET)
    network = network_of(recipe)
    save_checkpoint(Checkpoint(weights=network.state_dict(), recipe=recipe, provenance={}), tmp_path / "unet")
    return tmp_path / "unet", network.state_dict()


def test_nothing_named_changes_nothing_and_says_nothing():
    recipe = tiny_recipe()
    network = network_of(recipe)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert take_weights(network, recipe, Start()) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert Start().digests() == {}


def test_a_unet_starts_an_attention_unet(unet_model):
    folder, weights = unet_model
    recipe = tiny_recipe()
    network = network_of(recipe)
    (line,) = take_weights(network, recipe, Start(model=folder))
    assert f"{len(weights)} tensors loaded" in line
    assert "not in the weights" in line
    own = network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    "targets",
    [
        "targets={pancreas: [pancreas]}",
        "targets={pancreas: [pancreas], spleen: [spleen], left: [left_kidney]}",
        "targets={spleen: [spleen], pancreas: [pancreas], kidney: [left_kidney, right_kidney]}",
    ],
    ids=["fewer", "as many others", "another order"],
)
def test_heads_of_other_organs_are_drawn_afresh_and_said(unet_model, targets):
    folder, weights = unet_model
    recipe = tiny_recipe(targets)
    network = network_of(recipe)
    before = network.state_dict()["heads.0.weight"].clone()
    (line,) = take_weights(network, recipe, Start(model=folder))
    assert "drawn afresh" in line
    assert "heads.0.weight" in line
    assert torch.equal(network.state_dict()["heads.0.weight"], before)
    assert torch.equal(network.state_dict()["center.0.0.weight"], weights["center.0.0.weight"])


def test_parts_can_be_taken_alone(unet_model):
    folder, weights = unet_model
    recipe = tiny_recipe()
    network = network_of(recipe)
    take_weights(network, recipe, Start(model=folder, parts=("encoder",)))
    own = network.state_dict()
    assert torch.equal(own["encoder.0.0.0.weight"], weights["encoder.0.0.0.weight"])
    assert not torch.equal(own["center.0.0.weight"], weights["center.0.0.weight"])


def test_a_part_that_the_model_lacks_is_one_line(unet_model):
    recipe = tiny_recipe()
    with pytest.raises(UserError, match="under encodr"):
        take_weights(network_of(recipe), recipe, Start(model=unet_model[0], parts=("encodr",)))


def test_an_encoder_file_starts_a_resnet(tmp_path):
    source = ResNetEncoder(18)
    torch.save(source.model.state_dict(), tmp_path / "resnet18.pth")
    recipe = tiny_recipe(*RESNET)
    network = network_of(recipe)
    (line,) = take_weights(network, recipe, Start(encoder=tmp_path / "resnet18.pth"))
    assert "tensors loaded" in line
    assert line.endswith("normalisation: none")
    assert torch.equal(network.resnet.model.conv1.weight, source.model.conv1.weight)


def test_an_encoder_file_for_a_network_without_resnet_is_one_line(tmp_path):
    recipe = tiny_recipe()
    with pytest.raises(UserError, match="kind attention_unet"):
        take_weights(network_of(recipe), recipe, Start(encoder=tmp_path / "resnet18.pth"))


def test_an_encoder_file_of_another_depth_is_one_line(tmp_path):
    torch.save(ResNetEncoder(34).model.state_dict(), tmp_path / "resnet34.pth")
    recipe = tiny_recipe("network={kind: resnet_attention_unet, depth: 50}", "training.patch_size=[32,32,32]")
    with torch.device("meta"):
        network = network_of(recipe)
    with pytest.raises(UserError, match=r"resnet34\.pth.*network\.depth"):
        take_weights(network, recipe, Start(encoder=tmp_path / "resnet34.pth"))


def test_the_record_has_digests_and_no_paths(unet_model, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"anything")
    record = Start(model=unet_model[0], parts=("encoder",), encoder=tmp_path / "weights.pth").digests()
    assert record["init_from"].startswith("sha256:")
    assert record["init_from"].endswith(" encoder")
    assert record["pretrained_encoder"].startswith("sha256:")
    assert str(tmp_path) not in str(record)


def test_a_missing_file_is_one_line_before_anything_starts(tmp_path):
    for start in (Start(model=tmp_path / "none"), Start(encoder=tmp_path / "none.pth")):
        with pytest.raises(UserError, match="none"):
            start.digests()
