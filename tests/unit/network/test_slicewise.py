"""Slices as volumes: neighbours, axes, and a result that does not depend on where windows begin."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from ct_attn.inference.sliding_window import over_windows
from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.configs import SlicesConfig
from ct_attn.network.slicewise import SliceWise, core_of, gates_of
from ct_attn.network.unet import UNetConfig
from ct_attn.recipe import parse_recipe

PLANES = ("sagittal", "coronal", "axial")
CONFIG = AttentionUNetConfig(dims=2, widths=(2, 3, 4))


def drawn(slices, config=CONFIG):
    torch.manual_seed(0)
    return build_network(config, in_channels=1, n_classes=3, slices=slices).double().eval()


def stacks(image, slices):
    """Written out: every slice of [B, 1, I, J, K] with its neighbours, zeros beyond, [K][B, N, i, j]."""
    volume = image[:, 0]
    n_slices = volume.shape[1 + slices.axis]
    found = []
    for place in range(n_slices):
        channels = []
        for other in range(place - slices.halo, place + slices.halo + 1):
            inside = 0 <= other < n_slices
            slice_ = volume.select(1 + slices.axis, min(max(other, 0), n_slices - 1))
            channels.append(slice_ if inside else torch.zeros_like(slice_))
        found.append(torch.stack(channels, dim=1))
    return found


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_a_volume_is_its_slices_one_by_one(plane, neighbours):
    slices = SlicesConfig(plane=plane, neighbours=neighbours)
    network = drawn(slices)
    image = torch.randn(2, 1, 8, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        together = network(image)
        alone = [network.network(stack) for stack in stacks(image, slices)]
    assert together.shape == (2, 3, 8, 8, 8)
    assert torch.allclose(together, torch.stack(alone, dim=2 + slices.axis), atol=1e-12)


@pytest.mark.parametrize("plane", PLANES)
def test_training_supervises_the_slices_that_have_their_neighbours(plane):
    slices = SlicesConfig(plane=plane, neighbours=5)
    network = drawn(slices)
    image = torch.randn(2, 1, 8, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        (logits,) = network.supervised(image).logits
        inner = network(image).narrow(2 + slices.axis, 2, 4)
    assert torch.allclose(logits, inner, atol=1e-12)


def test_sizes_are_free_across_the_slices():
    assert drawn(SlicesConfig(plane="axial")).size_multiple == (4, 4, 1)
    assert drawn(SlicesConfig(plane="coronal")).size_multiple == (4, 1, 4)
    assert drawn(SlicesConfig(plane="sagittal")).size_multiple == (1, 4, 4)


def test_coarser_maps_that_are_supervised_are_coarser_in_plane_only():
    config = UNetConfig(dims=2, widths=(2, 3, 4, 4), deep_supervision="per_scale")
    supervised = drawn(SlicesConfig(plane="coronal"), config).supervised(torch.zeros(2, 1, 16, 3, 8).double())
    assert [tuple(map_.shape) for map_ in supervised.logits] == [(2, 3, 16, 3, 8), (2, 3, 8, 3, 4)]
    assert len(supervised.weights) == 2


RECIPE = """
name: slices
preprocessing: {spacing_mm: [8, 8, null]}
slices: {neighbours: 3}
network: {kind: attention_unet, dims: 2, widths: [2, 3, 4]}
training: {patch_size: [8, 8, 1]}
"""


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("at_a_time", [1, 3, 4, 16])
def test_it_does_not_matter_how_many_slices_are_predicted_at_a_time(plane, at_a_time):
    axis = PLANES.index(plane)
    spacing, patch = [8, 8, 8], [8, 8, 8]
    spacing[axis], patch[axis] = "null", 1
    changes = [
        f"slices.plane={plane}",
        f"preprocessing.spacing_mm={spacing}".replace("'", ""),
        f"training.patch_size={patch}",
    ]
    recipe = parse_recipe(RECIPE, [*changes, f"slices.at_a_time={at_a_time}"], source="slices")
    network = drawn(recipe.slices).float()
    image = torch.rand(11, 9, 10)
    seen = []

    def predict(window):
        seen.append(window.shape[2 + axis])
        return network(window)

    with torch.no_grad():
        logits = over_windows(predict, image, recipe, n_values=3)
        whole = parse_recipe(RECIPE, [*changes, "slices.at_a_time=99"], source="slices")
        expected = over_windows(network, image, whole, n_values=3)
    assert logits.shape == (3, 11, 9, 10)
    assert torch.allclose(logits, expected, atol=1e-5)
    length = image.shape[axis]
    assert max(seen) == min(at_a_time + 2, length)  # and a neighbour on either side
    across = 1 if at_a_time + 2 >= length else -(-(length - 2) // at_a_time)
    assert len(seen) == 4 * across  # two by two in plane


def test_neighbours_change_what_is_predicted():
    recipe = parse_recipe(RECIPE, source="slices")
    network = drawn(recipe.slices).float()
    image = torch.rand(8, 8, 5)
    other = image.clone()
    other[..., 3] += 1
    with torch.no_grad():
        before, after = (over_windows(network, each, recipe, n_values=3) for each in (image, other))
    changed = (before - after).abs().amax(dim=(0, 1, 2)) > 1e-6
    assert changed.tolist() == [False, False, True, True, True]


def test_gates_show_their_maps_on_the_volume():
    network = drawn(SlicesConfig(neighbours=3))
    names, stacked = gates_of(network)
    assert names == ["level1"]
    alpha = stacked(torch.randn(1, 1, 8, 8, 5, dtype=torch.float64))
    assert alpha.shape == (1, 1, 8, 8, 5)
    assert gates_of(drawn(SlicesConfig(), UNetConfig(dims=2, widths=(2, 3)))) is None


def test_the_core_is_the_network_itself():
    network = drawn(SlicesConfig())
    assert isinstance(network, SliceWise)
    assert core_of(network) is network.network
    assert core_of(network.network) is network.network


@pytest.mark.parametrize("neighbours", [0, 2, 4])
def test_a_slice_lies_in_the_middle_of_its_neighbours(neighbours):
    with pytest.raises(ValidationError, match="neighbours"):
        SlicesConfig(neighbours=neighbours)


def test_the_axis_across_comes_last_in_order():
    assert [SlicesConfig(plane=plane).order for plane in PLANES] == [(1, 2, 0), (0, 2, 1), (0, 1, 2)]
