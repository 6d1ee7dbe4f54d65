"""Classes of the nodes of a graph from those of a few."""

from .node_classifier import NodeClassifier as NodeClassifier
