"""Models made of the layers."""

from .correct_and_smooth import CorrectAndSmooth as CorrectAndSmooth
from .diff_resnet import DiffResNet as DiffResNet
from .label_propagation import LabelPropagation as LabelPropagation
from .random_propagation import RandomPropagation as RandomPropagation
from .residual_block import ResidualBlock as ResidualBlock
