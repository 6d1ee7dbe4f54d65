"""The feature extractors: ResNet-18, ResNet-10, WRN-28-10 and the four-block ConvNet."""

import torch.nn.functional as F
from torch import Tensor, nn


class Backbone(nn.Module):
    """Maps images [b, c, h, w] to features [b, ``dim``]."""

    dim: int


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), with a 1x1 projection of x where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x), inplace=True)


class ResNet(Backbone):
    """Four stages of basic blocks without max-pooling; as many features as the last is wide.

    Args:
        in_channels: Channels of the images.
        depth: Basic blocks in each stage: 2 make a ResNet-18, 1 a ResNet-10.
        widths: Channels of the stages.
        stride: Stride of the stem: 1 (a 3x3 kernel), or 2 (5x5), which costs a quarter of it.
    """

    def __init__(
        self,
        in_channels: int = 3,
        depth: int = 2,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.dim = widths[-1]
        kernel = 2 * stride + 1
        self.conv1 = nn.Conv2d(in_channels, widths[0], kernel, stride, padding=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = (widths[0], *widths)
        self.blocks = nn.Sequential(
            *(
                BasicBlock(inputs[i + (j > 0)], widths[i], 2 if i > 0 and j == 0 else 1)
                for i in range(len(widths))
                for j in range(depth)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.bn1(self.conv1(x)), inplace=True)).mean((2, 3))


class PreactBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))); the projection, where needed, sees relu(bn(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv3(outputs, outputs)
        self.project = None
        if inputs != outputs:
            self.project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(x), inplace=True)
        if self.project is not None:
            x = self.project(h)
        return x + self.conv2(F.relu(self.bn2(self.conv1(h)), inplace=True))


class WideResNet(Backbone):
    """WRN-28-10: three groups of four pre-activation blocks, 160-320-640 wide; 640 features."""

    dim = 640

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = _conv3(in_channels, 16)
        widths = (16, 160, 320, 640)
        self.blocks = nn.Sequential(
            *(
                PreactBlock(
                    widths[i] if j == 0 else widths[i + 1], widths[i + 1], 2 if i and not j else 1
                )
                for i in range(3)
                for j in range(4)
            )
        )
        self.bn = nn.BatchNorm2d(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.blocks(self.conv1(x))), inplace=True).mean((2, 3))


class Conv4(Backbone):
    """Four times (3x3 convolution to 64 channels, batch norm, relu, 2x2 max-pooling), flattened.

    ``dim`` is 64 * (image_size // 16)^2: 1600 for 84 pixels, 256 for 32, 64 for 28.
    """

    def __init__(self, in_channels: int = 3, image_size: int = 84) -> None:
        super().__init__()
        self.dim = 64 * (image_size // 16) ** 2
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    _conv3(in_channels if i == 0 else 64, 64),
                    nn.BatchNorm2d(64),
                    nn.ReLU(inplace=True),
                    nn.MaxPool2d(2),
                )
                for i in range(4)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).flatten(1)


BACKBONES = ("resnet18", "resnet10", "wideres", "conv4")


def build_backbone(name: str, in_channels: int = 3, image_size: int = 84) -> Backbone:
    """Make a backbone with He-initialized convolutions.

    Args:
        name: One of ``BACKBONES``.
        in_channels: 3 for color, 1 for gray images.
        image_size: Height and width of the input, at least 16; only conv4's ``dim`` depends on it.

    Raises:
        ValueError: If the name is unknown or the images are too small.
    """
    if image_size < 16:
        raise ValueError(f"'image_size' must be at least 16 (got {image_size})")
    if name == "resnet18":
        backbone: Backbone = ResNet(in_channels)
    elif name == "resnet10":
        backbone = ResNet(in_channels, depth=1, widths=(64, 128, 256, 320), stride=2)
    elif name == "wideres":
        backbone = WideResNet(in_channels)
    elif name == "conv4":
        backbone = Conv4(in_channels, image_size)
    else:
        raise ValueError(f"'backbone' must be one of {BACKBONES} (got '{name}')")
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone
