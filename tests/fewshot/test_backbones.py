import pytest
import torch

from fewshot.backbones import BACKBONES, build_backbone


# Parameters counted by hand from the published layer tables, without a classifier.
@pytest.mark.parametrize(
    "name, size, dim, parameters",
    [
        ("resnet18", 32, 512, 11_168_832),
        ("resnet10", 48, 320, 2_970_816),
        ("conv4", 84, 1600, 112_832),
        ("conv4", 32, 256, 112_832),
    ],
)
def test_shapes_and_size(name: str, size: int, dim: int, parameters: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, image_size=size)
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    features = backbone(torch.randn(2, 3, size, size))
    assert features.shape == (2, dim) and backbone.dim == dim
    assert (features >= 0).all() and features.std() > 1e-2


def test_wide_resnet_has_the_published_size() -> None:
    with torch.device("meta"):  # 36 million parameters: counted, not made
        backbone = build_backbone("wideres")
        features = backbone(torch.empty(2, 3, 84, 84))
    assert features.shape == (2, 640) and backbone.dim == 640
    parameters = sum(p.numel() for p in backbone.parameters())
    assert parameters == 36_479_194 - (640 * 10 + 10)  # of the CIFAR-10 network


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_halve_the_resolution(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, in_channels=1, image_size=64)
        last = list(
            backbone.blocks(torch.empty(1, {"conv4": 1, "wideres": 16}.get(name, 64), 64, 64)).shape
        )
    # the stem's own stride is not among the blocks
    assert (
        last
        == {
            "resnet18": [1, 512, 8, 8],
            "resnet10": [1, 320, 8, 8],
            "wideres": [1, 640, 16, 16],
            "conv4": [1, 64, 4, 4],
        }[name]
    )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="'backbone' must be one of .*got 'vgg'"):
        build_backbone("vgg")
    with pytest.raises(ValueError, match="'image_size' must be at least 16"):
        build_backbone("conv4", image_size=8)
