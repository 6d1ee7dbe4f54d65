"""Layers and models."""

from .appnp import APPNP as APPNP
from .consistency import consistency as consistency
from .correct_and_smooth import CorrectAndSmooth as CorrectAndSmooth
from .diff_conv import DiffConv as DiffConv
from .diff_resnet import DiffResNet as DiffResNet
from .diffused_views import DiffusedViews as DiffusedViews
from .gpr_conv import GPRConv as GPRConv
from .heat_conv import HeatConv as HeatConv
from .label_propagation import LabelPropagation as LabelPropagation
from .residual_block import ResidualBlock as ResidualBlock
from .sg_conv import SGConv as SGConv
from .ssg_conv import SSGConv as SSGConv
