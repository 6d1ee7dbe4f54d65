"""Graphs: adjacency forms, nearest neighbours and their weights."""

from .gaussian import gaussian_knn_graph as gaussian_knn_graph
from .knn import knn_graph as knn_graph
