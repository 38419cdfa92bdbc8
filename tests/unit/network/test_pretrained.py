from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from ct_attn.errors import UserError
from ct_attn.network.pretrained import load_pretrained, read_weights
from ct_attn.network.resnet import ResNetEncoder

#: Depth: blocks per layer, torchvision's published number of parameters.
DEPTHS = {
    18: ((2, 2, 2, 2), 11_689_512),
    34: ((3, 4, 6, 3), 21_797_672),
    50: ((3, 4, 6, 3), 25_557_032),
    101: ((3, 4, 23, 3), 44_549_160),
    152: ((3, 8, 36, 3), 60_192_808),
}


def torchvisions_shapes(depth) -> dict[str, tuple[int, ...]]:
    """The tensors of torchvision's ResNet by the rule of its listing, which knows nothing of our encoder."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm_shapes("bn1", 64)}
    coming = 64
    for layer, blocks in enumerate(DEPTHS[depth][0], start=1):
        width = 64 * 2 ** (layer - 1)
        going = width if depth < 50 else 4 * width
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            convolutions = (
                [(width, coming, 3, 3), (width, width, 3, 3)]
                if depth < 50
                else [(width, coming, 1, 1), (width, width, 3, 3), (going, width, 1, 1)]
            )
            for number, shape in enumerate(convolutions, start=1):
                shapes[f"{name}.conv{number}.weight"] = shape
                shapes |= norm_shapes(f"{name}.bn{number}", shape[0])
            if coming != going:
                shapes[f"{name}.downsample.0.weight"] = (going, coming, 1, 1)
                shapes |= norm_shapes(f"{name}.downsample.1", going)
            coming = going
    return {**shapes, "fc.weight": (1000, coming), "fc.bias": (1000,)}


def norm_shapes(name, channels) -> dict[str, tuple[int, ...]]:
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.num_batches_tracked": (), **{f"{name}.{part}": (channels,) for part in per_channel}}


def weights_in_torchvisions_naming(depth=18) -> dict[str, torch.Tensor]:
    """As torchvision saves its ResNet, classifier included, with numbers drawn."""
    return {
        name: torch.rand(shape) if shape else torch.tensor(450_450)
        for name, shape in torchvisions_shapes(depth).items()
    }


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_and_shapes_are_torchvisions_without_its_classifier(depth):
    shapes = torchvisions_shapes(depth)
    counted = [
        math.prod(shape) for name, shape in shapes.items() if "running" not in name and "tracked" not in name
    ]
    assert sum(counted) == DEPTHS[depth][1]  # or the rule above is not torchvision's
    del shapes["fc.weight"], shapes["fc.bias"]
    with torch.device("meta"):
        encoder = ResNetEncoder(depth, dims=2, in_channels=3)
    assert {name: tuple(tensor.shape) for name, tensor in encoder.model.state_dict().items()} == shapes


@pytest.mark.parametrize(("depth", "name"), [(18, "resnet18.pth"), (50, "resnet50.safetensors")])
def test_every_tensor_of_a_file_is_used_or_named(depth, name, tmp_path):
    encoder = ResNetEncoder(depth, dims=2, in_channels=3)
    weights = weights_in_torchvisions_naming(depth)
    save = save_file if name.endswith(".safetensors") else torch.save
    save(weights, tmp_path / name)
    report = load_pretrained(encoder, read_weights(tmp_path / name))
    assert set(report.unused) == {"fc.weight", "fc.bias"}
    assert report.missing == report.reinitialised == ()
    own = encoder.model.state_dict()
    assert set(report.loaded) == set(own) == set(weights) - set(report.unused)
    assert all(torch.equal(own[name], weights[name]) for name in own)


def test_a_file_older_than_the_counters_of_batches_is_loaded_without_them():
    encoder = ResNetEncoder(18, dims=2, in_channels=3)
    weights = weights_in_torchvisions_naming()
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    report = load_pretrained(encoder, {name: weights[name] for name in weights.keys() - counters})
    assert set(report.missing) == counters
    assert set(report.loaded) == set(weights) - counters - {"fc.weight", "fc.bias"}


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
