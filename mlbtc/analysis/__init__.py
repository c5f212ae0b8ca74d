"""Analysis: parameters, MACs, rank and memory of a spec, symbolic first and then with numbers."""

from mlbtc.analysis.attention import AttentionReport
from mlbtc.analysis.family import Family, recognise
from mlbtc.analysis.quantity import Quantity
from mlbtc.analysis.rank import Rank, generic_rank
from mlbtc.analysis.report import Report, analyze

__all__ = ["AttentionReport", "Family", "Quantity", "Rank", "Report", "analyze", "generic_rank", "recognise"]
