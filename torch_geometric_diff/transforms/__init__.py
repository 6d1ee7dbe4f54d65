"""Graph transforms, used as those of PyG."""

from .gaussian_knn_graph import GaussianKNNGraph as GaussianKNNGraph
