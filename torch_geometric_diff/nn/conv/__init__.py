"""Message passing layers, each a recurrence over the graph."""

from .appnp import APPNP as APPNP
from .attention_diffusion import AttentionDiffusion as AttentionDiffusion
from .diff_conv import DiffConv as DiffConv
from .gpr_conv import GPRConv as GPRConv
from .heat_conv import HeatConv as HeatConv
from .sg_conv import SGConv as SGConv
from .ssg_conv import SSGConv as SSGConv
