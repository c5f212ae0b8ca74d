"""Choosing a structure: the members of families for a shape, what they cost, and which of them are worth it."""

from mlbtc.selection.candidates import Candidate
from mlbtc.selection.options import largest_member, macs_of, options, parameters_of
from mlbtc.selection.search import Search, search

__all__ = ["Candidate", "Search", "largest_member", "macs_of", "options", "parameters_of", "search"]
