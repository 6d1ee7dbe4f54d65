"""Layers and models."""

from .conv import APPNP as APPNP
from .conv import AttentionDiffusion as AttentionDiffusion
from .conv import DiffConv as DiffConv
from .conv import GPRConv as GPRConv
from .conv import HeatConv as HeatConv
from .conv import SGConv as SGConv
from .conv import SSGConv as SSGConv
from .functional import consistency as consistency
from .models import CorrectAndSmooth as CorrectAndSmooth
from .models import DiffResNet as DiffResNet
from .models import LabelPropagation as LabelPropagation
from .models import RandomPropagation as RandomPropagation
from .models import ResidualBlock as ResidualBlock
