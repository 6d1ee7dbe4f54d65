"""Layers and models."""

from .diff_conv import DiffConv as DiffConv
from .diff_resnet import DiffResNet as DiffResNet
from .residual_block import ResidualBlock as ResidualBlock
