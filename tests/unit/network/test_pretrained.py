from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ct_attn.errors import UserError
from ct_attn.network.pretrained import load_pretrained, read_weights
from ct_attn.network.resnet import ResNetEncoder


def weights_in_torchvisions_naming(depth=18, channels=3):
    """As torchvision saves its ResNet: the encoder's names, and a classifier behind them."""
    encoder = ResNetEncoder(depth, dims=2, in_channels=channels)
    weights = {name: torch.randn(tensor.shape) for name, tensor in encoder.model.named_parameters()}
    statistics = {
        name: torch.rand(tensor.shape)
        for name, tensor in encoder.model.named_buffers()
        if not name.endswith("num_batches_tracked")
    }
    return {**weights, **statistics, "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


def test_names_are_torchvisions():
    names = set(ResNetEncoder(50, dims=2, in_channels=3).model.state_dict())
    assert {
        "conv1.weight", "bn1.running_mean", "layer1.0.conv3.weight", "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.bias", "layer4.2.bn3.weight",
    } <= names  # fmt: skip


def test_every_tensor_is_used_or_named():
    encoder = ResNetEncoder(18, dims=2, in_channels=3)
    weights = weights_in_torchvisions_naming()
    report = load_pretrained(encoder, weights)
    assert report.unused == ("fc.weight", "fc.bias")
    assert set(report.loaded) == set(weights) - set(report.unused)
    own = encoder.model.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in report.loaded)


def test_a_colour_stem_answers_grey_as_three_equal_channels():
    grey, colour = ResNetEncoder(18, dims=2, in_channels=1), ResNetEncoder(18, dims=2, in_channels=3)
    weights = weights_in_torchvisions_naming()
    load_pretrained(grey, weights)
    load_pretrained(colour, weights)
    image = torch.randn(1, 1, 64, 64)
    stem = [encoder.eval().model.conv1 for encoder in (grey, colour)]
    assert torch.allclose(stem[0](image), stem[1](image.expand(1, 3, 64, 64)), atol=1e-4)


@pytest.mark.parametrize("form", ["weights.safetensors", "plain.pth", "wrapped.pth"])
def test_files_of_all_kinds_are_read(form, tmp_path):
    weights = weights_in_torchvisions_naming()
    if form.endswith(".safetensors"):
        save_file(weights, tmp_path / form)
    elif form == "plain.pth":
        torch.save(weights, tmp_path / form)
    else:
        torch.save(
            {"state_dict": {f"module.{n}": t for n, t in weights.items()}, "epoch": 3}, tmp_path / form
        )
    read = read_weights(tmp_path / form)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in read)


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.pth", None),
        ("text.pth", b"not weights"),
        ("empty.pth", b""),
        ("text.safetensors", b"not weights"),
        ("missing.safetensors", None),
        ("list.pth", [torch.zeros(1)]),
        ("numbers.pth", {"epoch": 3}),
        ("code.pth", {"weights": Malicious()}),
    ],
)
def test_a_file_of_anything_else_is_one_line(name, content, tmp_path, capsys):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=name) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("depth", "what"), [(34, "has no layer1.2.conv1.weight"), (50, "layer1.0.conv1.weight is|has no layer1")]
)
def test_weights_of_another_depth_are_refused(depth, what):
    with pytest.raises(ValueError, match=what):
        load_pretrained(ResNetEncoder(depth, dims=2), weights_in_torchvisions_naming(18))


def test_a_stem_of_three_channels_is_kept_for_three_neighbours_and_refused_for_five():
    weights = weights_in_torchvisions_naming()
    kept = ResNetEncoder(18, dims=2, in_channels=3)
    load_pretrained(kept, weights)
    assert torch.equal(kept.model.conv1.weight, weights["conv1.weight"])
    with pytest.raises(ValueError, match=r"conv1.weight is \(64, 3, 7, 7\), the encoder's \(64, 5, 7, 7\)"):
        load_pretrained(ResNetEncoder(18, dims=2, in_channels=5), weights)
