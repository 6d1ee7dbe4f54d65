"""Graphs: adjacency forms, nearest neighbors and their weights."""

from .feature_graph import feature_graph as feature_graph
from .feature_graph import with_feature_neighbors as with_feature_neighbors
from .gaussian import gaussian_knn_graph as gaussian_knn_graph
from .neighbors import knn as knn
from .neighbors import knn_graph as knn_graph
