"""Reports as rows for a table, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

import sympy as sp

from mlbtc.analysis.attention import AttentionReport
from mlbtc.analysis.family import Family, recognise, recognise_levels
from mlbtc.analysis.quantity import Quantity
from mlbtc.analysis.report import Report
from mlbtc.analysis.score import SPLIT_HEADER, split_rows
from mlbtc.plan.score import LayerPlan
from mlbtc.spec.language import MLBTC

Row = tuple[str, ...]
_MOST_LEVELS_NAMED = 8


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of a report's main table.

    Attributes:
        key: where `to_json` has it, for instance `memory.bytes_moved`.
        label: what it is called.
        quantity: what it is.
        dense: the same of the dense matrix, or of standard attention; None where that makes no sense.
        linear: whether it is T times the number of one token.
    """

    key: str
    label: str
    quantity: Quantity
    dense: Quantity | None = None
    linear: bool = False


def measures(report: Report | AttentionReport) -> tuple[Measure, ...]:
    """Return what the main table of a report shows, in order."""
    return _layer_measures(report) if isinstance(report, AttentionReport) else _matrix_measures(report)


def _matrix_measures(report: Report) -> tuple[Measure, ...]:
    dense, memory = dict(report.dense), report.memory
    return (
        Measure("parameters", "parameters", report.parameters, dense["parameters"]),
        Measure("macs", "MACs", report.macs, dense["macs"], linear=True),
        Measure("flops", "FLOPs", report.flops, dense["flops"], linear=True),
        Measure("rank", "rank", report.rank),
        Measure("peak_elements", "largest intermediate (elements)", report.peak_elements, linear=True),
        Measure("memory.kept_elements", "kept for the backward (elements)", memory.kept_elements, linear=True),
        Measure("memory.bytes_moved", f"bytes moved ({memory.dtype})", memory.bytes_moved, memory.dense_bytes_moved),
    )


def _layer_measures(report: AttentionReport) -> tuple[Measure, ...]:
    dense = dict(report.dense)
    width, tokens = report.spec.width, report.tokens
    scores, projections = Quantity.of(tokens**2 * width, {}), Quantity.of(2 * tokens * width**2, {})
    cache = Quantity.of(tokens * width, {})
    return (
        Measure("parameters", "parameters", report.parameters, dense["parameters"]),
        Measure("macs", "MACs", report.macs, dense["macs"]),
        Measure("flops", "FLOPs", report.flops, dense["flops"]),
        Measure("scores", "scores (MACs)", report.scores, scores),
        Measure("projections.query_key", "query and key projections (MACs)", report.query_key, projections),
        Measure("projections.value_output", "value and output projections (MACs)", report.value_output, projections),
        Measure("values", "weighted values (MACs)", report.values, scores),
        Measure("key_cache", "key cache (elements)", report.key_cache, cache),
        Measure("value_cache", "value cache (elements)", report.value_cache, cache),
        Measure("rank", "rank of a head's score map", report.rank),
    )


def matrix_rows(report: Report) -> list[Row]:
    """Return (quantity, symbolic, value, dense, dense / value) for a matrix."""
    return [_per_token_row(one, report) if one.linear else _row(one, report) for one in measures(report)]


def _per_token_row(one: Measure, report: Report) -> Row:
    """Where only T is open, show the number of one token times T."""
    if one.quantity.value is not None or not isinstance(report.tokens, sp.Symbol):
        return _row(one, report)
    values = {**dict(report.spec.defaults), str(report.tokens): 1}
    single, dense = Quantity.of(one.quantity.symbolic, values), one.dense and Quantity.of(one.dense.symbolic, values)
    if single.value is None:
        return _row(one, report)
    row = _row(replace(one, quantity=Quantity(one.quantity.symbolic, single.value), dense=dense), report)
    tokens = report.tokens.name
    return (*row[:2], f"{row[2]} {tokens}", f"{row[3]} {tokens}" if dense else "", row[4])


def attention_rows(report: AttentionReport) -> list[Row]:
    """Return (quantity, symbolic, value, standard, standard / value) for an attention layer."""
    return [_row(one, report) for one in measures(report)]


HEADER = ("quantity", "symbolic", "value", "dense", "dense / this")
ATTENTION_HEADER = ("quantity", "symbolic", "value", "standard", "standard / this")


def _row(one: Measure, report: Report | AttentionReport) -> Row:
    quantity, dense = one.quantity, one.dense
    label = f"{one.label} ({report.certainty})" if one.key == "rank" else one.label
    value = "" if quantity.value is None else f"{quantity.value:,}"
    if dense is None:
        return (label, str(quantity.symbolic), value, "", "")
    ratio = f"{dense.value / quantity.value:.4g}" if quantity.value and dense.value else ""
    return (label, str(quantity.symbolic), value, f"{dense.value:,}" if dense.value else str(dense.symbolic), ratio)


def title(report: Report | AttentionReport) -> str:
    """Return one line that says what was analysed."""
    if isinstance(report, AttentionReport):
        return f"{report.spec}, {report.tokens} tokens"
    count = len(report.levels)
    levels = "1 level" if count == 1 else f"{count} levels"
    return f"{report.name}: {report.shape[0]} x {report.shape[1]}, {levels}, {report.tokens} tokens"


def step_rows(report: Report) -> list[Row]:
    """Return (level, step, MACs, elements, bytes) for every step of the plan."""
    rows: list[Row] = []
    for step in report.steps:
        left, _, _ = step.text.partition(": ")
        rows.append((str(step.level), left, str(step.macs), str(step.elements), str(step.bytes_moved)))
    return rows


STEP_HEADER = ("level", "step", "MACs", "elements", "bytes")


def markdown_table(header: Row, rows: list[Row]) -> str:
    """Return a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def notes(report: Report | AttentionReport) -> list[str]:
    """Return the sentences behind the tables: the family, the rank's reason, where it beats dense, conditions."""
    if isinstance(report, AttentionReport):
        spec = report.spec
        names = ["M"] if spec.score is not None else [f"M_{level}" for level, _ in enumerate(spec.scores, 1)]
        pairs = zip(names, spec.scores, strict=True) if spec.scores else ()
        return [f"family of {name}: {_family(recognise(score), score)}" for name, score in pairs]
    family = f"family: {_family(report.family, report.spec)}"
    reason = f"the rank is {'exact' if report.certainty == 'exact' else 'an upper bound'}: {report.reason}"
    crossover = [] if report.crossover is None else [str(report.crossover)]
    return [family, reason, *crossover, *(f"needs: {condition}" for condition in report.conditions)]


def _family(family: Family | None, spec: MLBTC) -> str:
    """Return the family of a spec, or those of its levels where the sum has none and they are few."""
    if family is not None or not 1 < len(spec.levels) <= _MOST_LEVELS_NAMED:
        return str(family or "none that is known")
    found = (
        str(part or "none that is known") + (f" at {level.at}" if level.at else "")
        for part, level in zip(recognise_levels(spec), spec.levels, strict=True)
    )
    return f"none as a whole; level by level {', '.join(found)}"


def report_markdown(report: Report) -> str:
    """Return the Markdown form of a matrix report."""
    parts = [f"## {title(report)}", markdown_table(HEADER, matrix_rows(report))]
    parts.append(markdown_table(STEP_HEADER, step_rows(report)))
    lines = [*notes(report), *(f"warning: {warning}" for warning in report.warnings)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in lines)]) + "\n"


def attention_markdown(report: AttentionReport) -> str:
    """Return the Markdown form of an attention report."""
    parts = [f"## {title(report)}", markdown_table(ATTENTION_HEADER, attention_rows(report))]
    if report.score is not None:
        parts += [score_title(report.score), markdown_table(SPLIT_HEADER, split_rows(report.score))]
    lines = "\n".join(f"- {note}" for note in notes(report))
    return "\n\n".join([*parts, *([lines] if lines else [])]) + "\n"


def score_title(plan: LayerPlan) -> str:
    """Return one line that says what the table of splits shows."""
    return (
        f"The scores x_i^T M x_j are cut into {plan.features} features of a query and of a key. Splits of each level, "
        f"the best for {plan.tokens} tokens and those it beat:"
    )


def to_csv(report: Report | AttentionReport) -> str:
    """Return the report's main table as CSV."""
    is_attention = isinstance(report, AttentionReport)
    rows = attention_rows(report) if isinstance(report, AttentionReport) else matrix_rows(report)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ATTENTION_HEADER if is_attention else HEADER)
    writer.writerows([[cell.replace(",", "") if i in (2, 3) else cell for i, cell in enumerate(row)] for row in rows])
    return text.getvalue()
