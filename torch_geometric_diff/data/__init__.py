"""Graphs that load offline, in the form the paper uses."""

from .features import sparse_features as sparse_features
from .features import standard_form as standard_form
from .graphs import data_root as data_root
from .graphs import load_graph as load_graph
