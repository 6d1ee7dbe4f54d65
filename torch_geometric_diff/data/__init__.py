"""Graphs that load offline, in the form the paper uses, and the splits of its protocol."""

from .features import sparse_features as sparse_features
from .features import standard_form as standard_form
from .graphs import data_root as data_root
from .graphs import load_graph as load_graph
from .splits import development_split as development_split
from .splits import fraction_split as fraction_split
from .splits import leave_out_small_classes as leave_out_small_classes
from .splits import mask_splits as mask_splits
from .splits import per_class_split as per_class_split
from .splits import split_seeds as split_seeds
