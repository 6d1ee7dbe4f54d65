"""Methods that label the queries of few-shot tasks, all behind :class:`Method`."""

from .base import Method as Method
from .bdcspn import BDCSPN as BDCSPN
from .diffusion import Diffusion as Diffusion
from .heat import HeatPrototypes as HeatPrototypes
from .laplacian import LaplacianShot as LaplacianShot
from .logistic import LogisticRegression as LogisticRegression
from .propagation import LabelPropagation as LabelPropagation
from .prototype import PowerPrototype as PowerPrototype
from .prototype import SimpleShot as SimpleShot
from .ptmap import PTMAP as PTMAP
from .ptmap import PriorFreePTMAP as PriorFreePTMAP
from .tim import TIM as TIM
from .tim import AlphaTIM as AlphaTIM
