"""Graphs, their weights, and the diffusion operator built from them."""

from .gaussian import gaussian_knn_graph as gaussian_knn_graph
from .knn import knn_graph as knn_graph
from .operator import DiffusionOperator as DiffusionOperator
