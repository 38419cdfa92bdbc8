from __future__ import annotations

import pytest
import torch

from ct_attn.network.configs import encoder_widths
from ct_attn.network.resnet import ResNetEncoder


@pytest.mark.parametrize(
    ("depth", "parameters"),
    # torchvision's published counts, less those of its classifier
    [
        (18, 11_689_512 - 513_000),
        (34, 21_797_672 - 513_000),
        (50, 25_557_032 - 2_049_000),
        (101, 44_549_160 - 2_049_000),
        (152, 60_192_808 - 2_049_000),
    ],
)
def test_parameter_counts_of_colour_pictures(depth, parameters):
    with torch.device("meta"):
        encoder = ResNetEncoder(depth, dims=2, in_channels=3)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize(("dims", "size"), [(2, (64, 32)), (3, (64, 32, 96))])
def test_features_halve_from_stage_to_stage(depth, dims, size):
    with torch.device("meta"):
        features = ResNetEncoder(depth, dims=dims)(torch.zeros(1, 1, *size))
    assert tuple(map(tuple, (f.shape for f in features))) == tuple(
        (1, width, *(side // 2 ** (stage + 1) for side in size))
        for stage, width in enumerate(encoder_widths(depth))
    )


def test_stages_are_four_times_wider_from_50_on_and_the_stem_is_not():
    assert encoder_widths(18) == encoder_widths(34) == (64, 64, 128, 256, 512)
    assert encoder_widths(50) == encoder_widths(101) == encoder_widths(152) == (64, 256, 512, 1024, 2048)


def test_shortcuts_by_padding_have_no_parameters():
    names = {
        kind: {
            name
            for name, _ in ResNetEncoder(18, dims=2, shortcut=kind).named_parameters()
            if "downsample" in name
        }
        for kind in ("convolution", "padding")
    }
    assert not names["padding"]
    assert len(names["convolution"]) == 9


@pytest.mark.parametrize("shortcut", ["convolution", "padding"])
def test_gradients_reach_every_parameter(shortcut):
    encoder = ResNetEncoder(18, dims=2, shortcut=shortcut)
    sum(f.square().mean() for f in encoder(torch.randn(2, 1, 64, 64))).backward()
    assert not [name for name, parameter in encoder.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [(3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), (1, [0.449], [0.226]), (5, [0.449] * 5, [0.226] * 5)],
)
def test_an_image_is_normalised_as_photographs_are(channels, mean, std):
    encoder = ResNetEncoder(18, dims=2, in_channels=channels, normalisation="imagenet").eval()
    plain = ResNetEncoder(18, dims=2, in_channels=channels).eval()
    plain.load_state_dict(encoder.state_dict())  # the constants are no weights
    image = torch.rand(1, channels, 32, 32)
    shifted = (image - torch.tensor(mean).reshape(1, -1, 1, 1)) / torch.tensor(std).reshape(1, -1, 1, 1)
    with torch.no_grad():
        assert torch.allclose(encoder(image)[0], plain(shifted)[0], atol=1e-5)
