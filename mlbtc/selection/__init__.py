"""Choosing a structure: the members of families for a shape, what they cost, and which of them are worth it."""

from mlbtc.selection.options import largest_member, macs_of, options, parameters_of

__all__ = ["largest_member", "macs_of", "options", "parameters_of"]
