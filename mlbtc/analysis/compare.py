"""Several specs side by side: one row each, matrices or attention layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from mlbtc.analysis.attention import AttentionReport
from mlbtc.analysis.quantity import Quantity
from mlbtc.analysis.report import Report
from mlbtc.errors import AnalysisError

Row = tuple[str, ...]

PROBLEM = "problem"
"""The last column of a table in which a row may say why it has no costs."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A table of reports: names of columns, and a row of texts for each report."""

    header: Row
    rows: tuple[Row, ...]


_COMMON = ("parameters", "MACs", "rank", "certainty")
COSTS = (*_COMMON, "bytes", "dense / parameters", "dense / MACs")
LAYER_COSTS = (*_COMMON, "cache (elements)", "standard / parameters", "standard / MACs")
MATRIX = ("name", "shape", *COSTS)
ATTENTION = ("name", "width", *LAYER_COSTS)


def compare(reports: Sequence[Report | AttentionReport], names: Sequence[str] = ()) -> Comparison:
    """Return one row of costs for each report.

    Args:
        reports: of matrices only, or of attention layers only.
        names: what messages call the specs, for instance their files; by default their names.

    Raises:
        AnalysisError: there are no reports, or matrices and attention layers are mixed.
    """
    if not reports:
        raise AnalysisError("a comparison needs at least one report")
    called = names or [report.name for report in reports]
    matrices = [report for report in reports if isinstance(report, Report)]
    layers = [report for report in reports if isinstance(report, AttentionReport)]
    if matrices and layers:
        kinds = [isinstance(report, Report) for report in reports]
        matrix, layer = called[kinds.index(True)], called[kinds.index(False)]
        raise AnalysisError(
            f"matrices and attention layers have different costs and share no table: {matrix} is a matrix, {layer} an "
            "attention layer; compare each kind by itself"
        )
    if matrices:
        rows = [(r.name, f"{r.shape[0]} x {r.shape[1]}", *cost_row(r)) for r in matrices]
        return Comparison(MATRIX, tuple(rows))
    return Comparison(ATTENTION, tuple((r.name, str(r.spec.width), *cost_row(r)) for r in layers))


def cost_row(report: Report | AttentionReport) -> Row:
    """Return the columns of `COSTS` for a matrix, of `LAYER_COSTS` for an attention layer."""
    dense = dict(report.dense)
    held = report.memory.bytes_moved if isinstance(report, Report) else _cache(report)
    return (
        number(report.parameters),
        number(report.macs),
        number(report.rank),
        report.certainty,
        number(held),
        ratio(report.parameters, dense["parameters"]),
        ratio(report.macs, dense["macs"]),
    )


def _cache(report: AttentionReport) -> Quantity:
    """Return the elements of keys and values that decoding keeps."""
    keys, values = report.key_cache, report.value_cache
    known = None if keys.value is None or values.value is None else keys.value + values.value
    return Quantity(keys.symbolic + values.symbolic, known)


def number(quantity: Quantity) -> str:
    """Return the value with commas, or the formula where there is none."""
    return str(quantity.symbolic) if quantity.value is None else f"{quantity.value:,}"


def ratio(quantity: Quantity, dense: Quantity) -> str:
    """Return how many times the dense cost is this one, simplified where symbols are left."""
    if quantity.value and dense.value:
        return f"{dense.value / quantity.value:.4g}"
    share = sp.cancel(sp.sympify(dense.symbolic) / quantity.symbolic)
    return f"{float(share):.4g}" if share.is_number else str(share)
