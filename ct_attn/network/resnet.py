"""A ResNet (He et al. 2016, arXiv 1512.03385) as an encoder: MONAI's layers, five feature maps out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ct_attn.network.configs import STAGE_WIDTHS, Depth, ImageNorm, Shortcut
from ct_attn.network.levels import Dims

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ImageNetNorm(nn.Module):
    """(x - mean) / std of an image in 0 to 1, as torchvision's weights were trained with.

    Three channels have ImageNet's red, green and blue; any other number their means,
    0.449 and 0.226.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, dims: Dims) -> None:
        super().__init__()
        shape = (1, -1, *[1] * dims)
        for name, colours in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD)):
            values = colours if channels == 3 else (sum(colours) / 3,) * channels
            self.register_buffer(name, torch.tensor(values).reshape(shape), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """[B, channels, ...] to the same shape."""
        return (image - self.mean) / self.std


class ResNetEncoder(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size, :func:`encoder_widths` channels.

    ``shortcut``: where a stage changes size, go around it by a 1x1x1 ``convolution`` (as
    torchvision's weights have it, and MedicalNet's from depth 50 on) or by ``padding``
    with empty channels (MedicalNet's 18 and 34). Parameters carry torchvision's names.
    ``normalisation`` of the image in front of the stem: none, or ``imagenet``.
    """

    def __init__(
        self,
        depth: Depth,
        *,
        dims: Dims = 3,
        in_channels: int = 1,
        shortcut: Shortcut = "convolution",
        normalisation: ImageNorm = "none",
    ) -> None:
        # Seconds to import, and most networks do without.
        from monai.networks.nets.resnet import ResNet  # noqa: PLC0415

        super().__init__()
        self.normalise = ImageNetNorm(in_channels, dims) if normalisation == "imagenet" else nn.Identity()
        self.model = ResNet(
            "basic" if depth < 50 else "bottleneck",
            list(_BLOCKS[depth]),
            list(STAGE_WIDTHS),
            spatial_dims=dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            shortcut_type="B" if shortcut == "convolution" else "A",
            feed_forward=False,
            bias_downsample=False,
        )

    def stages(self) -> list[nn.Module]:
        """The five parts in order, each from the features of the one before (the first from the image)."""
        net = self.model
        stem = nn.Sequential(self.normalise, net.conv1, net.bn1, net.act)
        return [stem, nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4]

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B, in_channels, I, J, K], sides multiples of 32, to the five feature maps, finest first."""
        features: list[Tensor] = []
        x = image
        for stage in self.stages():
            x = stage(x)
            features.append(x)
        return features
