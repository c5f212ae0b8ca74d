"""The contraction graph: tensors against indices, the form that analysis and planning read."""

from mlbtc.graph.build import ContractionGraph, build_graph
from mlbtc.graph.check import check

__all__ = ["ContractionGraph", "build_graph", "check"]
