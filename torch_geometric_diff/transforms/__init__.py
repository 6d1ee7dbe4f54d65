"""Graph transforms, used as those of PyG."""

from .gaussian_knn_graph import GaussianKNNGraph as GaussianKNNGraph
from .propagated import SIGN as SIGN
from .propagated import Heat as Heat
from .propagated import PersonalizedPageRank as PersonalizedPageRank
