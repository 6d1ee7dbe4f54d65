"""Graphs, their weights, and the diffusion operator built from them."""

from .operator import DiffusionOperator as DiffusionOperator
