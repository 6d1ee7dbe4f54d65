"""Layers and models."""

from .consistency import consistency as consistency
from .diff_conv import DiffConv as DiffConv
from .diff_resnet import DiffResNet as DiffResNet
from .diffused_views import DiffusedViews as DiffusedViews
from .residual_block import ResidualBlock as ResidualBlock
