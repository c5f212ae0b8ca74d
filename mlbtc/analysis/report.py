"""The cost report of a spec: `analyze(spec)`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import sympy as sp

from mlbtc.analysis.attention import AttentionReport, analyze_attention
from mlbtc.analysis.crossover import Crossover, find_crossover
from mlbtc.analysis.family import Family, name_of, recognise
from mlbtc.analysis.memory import Memory, element_bytes, memory_of, step_elements
from mlbtc.analysis.quantity import Quantity
from mlbtc.analysis.rank import Rank, generic_rank
from mlbtc.analysis.warnings import find_warnings
from mlbtc.errors import AnalysisError
from mlbtc.graph import build_graph, check
from mlbtc.plan import Plan, build_plan
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import Size, as_size, product, substitute, symbol, total


@dataclass(frozen=True, slots=True)
class LevelReport:
    """The costs of one level; `expression` is what it computes."""

    expression: str
    scale: float | int
    parameters: Quantity
    macs: Quantity
    rank: Quantity
    certainty: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        rank = {**self.rank.to_json(), "certainty": self.certainty, "reason": self.reason}
        return {
            "expression": self.expression,
            "scale": self.scale,
            "parameters": self.parameters.to_json(),
            "macs": self.macs.to_json(),
            "rank": rank,
        }


@dataclass(frozen=True, slots=True)
class StepReport:
    """One pairwise contraction of the plan."""

    level: int
    text: str
    macs: Quantity
    elements: Quantity
    bytes_moved: Quantity

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "level": self.level,
            "step": self.text,
            "macs": self.macs.to_json(),
            "elements": self.elements.to_json(),
            "bytes": self.bytes_moved.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What a matrix costs and what it can express.

    Attributes:
        name: the name of the spec.
        shape: `(out, in)`.
        tokens: the number of tokens T, a number or a symbol.
        parameters: learnable numbers.
        macs: multiply-adds for T tokens.
        flops: 2 macs.
        rank: the generic rank; `certainty` says whether it is exact, `reason` why.
        peak_elements: elements of the largest result of a step.
        dense: parameters, macs and flops of the dense matrix of the same shape.
        levels: the same per level.
        steps: the plan, step by step.
        conditions: what symbolic sizes must meet.
        warnings: what the spec probably does not intend.
        memory: bytes moved, and the elements that training keeps.
        crossover: the numbers of tokens for which the spec is cheaper than dense; None while a size is open.
    """

    name: str
    shape: tuple[Size, Size]
    tokens: Size
    parameters: Quantity
    macs: Quantity
    flops: Quantity
    rank: Quantity
    certainty: str
    reason: str
    peak_elements: Quantity
    dense: tuple[tuple[str, Quantity], ...]
    levels: tuple[LevelReport, ...]
    steps: tuple[StepReport, ...]
    conditions: tuple[str, ...]
    warnings: tuple[str, ...]
    spec: MLBTC
    memory: Memory
    crossover: Crossover | None

    @property
    def family(self) -> Family | None:
        """The family that the matrix belongs to."""
        return recognise(self.spec)

    def bind(self, **values: int | str) -> Report:
        """Return the report with symbols replaced, the number of tokens under its name T.

        Raises:
            SpecError: a name is no symbol of the report, or a size does not fit.
        """
        counting = set() if isinstance(self.tokens, int) else {s.name for s in self.tokens.free_symbols}
        counts = {name: as_size(values.pop(name), "the number of tokens") for name in counting & set(values)}
        tokens = substitute(self.tokens, counts, "the number of tokens")
        spec = self.spec.bind(**values) if values else self.spec
        return _analyze_matrix(spec, _tokens(spec, tokens), self.memory.dtype)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data for `json.dumps`."""
        return {
            "name": self.name,
            "shape": [size if isinstance(size, int) else str(size) for size in self.shape],
            "family": name_of(self.family),
            "parameters": self.parameters.to_json(),
            "macs": self.macs.to_json(),
            "flops": self.flops.to_json(),
            "rank": {**self.rank.to_json(), "certainty": self.certainty, "reason": self.reason},
            "peak_elements": self.peak_elements.to_json(),
            "dense": {key: quantity.to_json() for key, quantity in self.dense},
            "levels": [level.to_json() for level in self.levels],
            "steps": [step.to_json() for step in self.steps],
            "conditions": list(self.conditions),
            "warnings": list(self.warnings),
            "memory": self.memory.to_json(),
            "crossover": None if self.crossover is None else self.crossover.to_json(),
        }

    def to_markdown(self) -> str:
        """Return the report as Markdown tables."""
        from mlbtc.analysis.render import report_markdown

        return report_markdown(self)

    def __str__(self) -> str:
        return json.dumps(self.to_json(), indent=2)


def analyze(
    spec: MLBTC | AttentionSpec, batch: Size | str | None = None, *, dtype: str = "float32"
) -> Report | AttentionReport:
    """Return what a spec costs, symbolic and, where symbols are bound, in numbers.

    Args:
        spec: a matrix or an attention layer.
        batch: the number of tokens T, a number or a symbol; None for the symbol T.
        dtype: of factors and activations, for the bytes that a matrix moves: a key of `memory.ELEMENT_BYTES`.

    Returns:
        A `Report` for a matrix, an `AttentionReport` for an attention layer. Symbols with a default keep their name in
        the symbolic forms and use the default in the values.

    Raises:
        GraphError: the spec is not a matrix.
        AnalysisError: the dtype is not known, or the symbol for tokens is one of the spec.
    """
    element_bytes(dtype)
    tokens = _tokens(spec, batch)
    if isinstance(spec, AttentionSpec):
        return analyze_attention(spec, tokens)
    return _analyze_matrix(spec, tokens, dtype)


def _tokens(spec: MLBTC | AttentionSpec, batch: Size | str | None) -> Size:
    taken = spec.symbols if isinstance(spec, MLBTC) else ()
    if batch is None:
        names = chain(["T", "tokens"], (f"tokens{number}" for number in count(2)))
        return symbol(next(name for name in names if name not in taken))
    tokens = as_size(batch, "batch (the number of tokens)")
    clash = {s.name for s in tokens.free_symbols} & set(taken) if isinstance(tokens, sp.Expr) else set()
    if clash:
        raise AnalysisError(f"the spec uses the symbol {min(clash)} for a size: count tokens with another one")
    return tokens


def _analyze_matrix(spec: MLBTC, tokens: Size, dtype: str) -> Report:
    return report_of_plan(spec, build_plan(check(build_graph(spec)), tokens, values=dict(spec.defaults)), dtype)


def report_of_plan(spec: MLBTC, plan: Plan, dtype: str = "float32") -> Report:
    """Return the report of a matrix that is applied as a plan says: `analyze` with the choice of the order left out.

    Args:
        spec: the matrix.
        plan: one of `mlbtc.plan.orders.possible_plans`.
        dtype: a key of `memory.ELEMENT_BYTES`.
    """
    bound, values, tokens = spec.bind_defaults(), dict(spec.defaults), plan.tokens
    rank, count = _rank(spec, plan), len(spec.levels)
    parts = [rank] if count == 1 else [_rank(_single(spec, n), _slice(plan, n)) for n in range(count)]
    # The certainty of a report is that of its number where there is one.
    settled = rank if bound is spec else _rank(bound, build_plan(check(build_graph(bound)), tokens))

    def quantity(size: Size) -> Quantity:
        return Quantity.of(size, values)

    value = settled.size if isinstance(settled.size, int) else None
    parameters = [_parameters(_single(spec, number)) for number in range(count)]
    levels = tuple(
        LevelReport(str(level), level.scale, quantity(p), quantity(costs.macs), quantity(part.size), part.certainty,
                    part.reason)
        for level, p, costs, part in zip(spec.levels, parameters, plan.levels, parts, strict=True)
    )  # fmt: skip
    bytes_each = element_bytes(dtype)
    exact = [level.rank.value if level.certainty == "exact" else None for level in levels]
    steps = tuple(
        StepReport(number, str(step), quantity(step.macs), quantity(step.elements),
                   quantity(bytes_each * step_elements(step, level_plan, tokens)))
        for number, level_plan in enumerate(plan.levels)
        for step in level_plan.steps
    )  # fmt: skip
    crossover = find_crossover(bound, plan, values, bytes_each)
    dense = (
        ("parameters", quantity(product(list(spec.shape)))),
        ("macs", quantity(plan.dense_macs)),
        ("flops", quantity(2 * plan.dense_macs)),
    )
    return Report(
        spec.name, spec.shape, tokens, quantity(_parameters(spec)), quantity(plan.macs), quantity(2 * plan.macs),
        Quantity(rank.size, value), settled.certainty, settled.reason, quantity(plan.largest), dense, levels, steps,
        tuple(map(str, spec.conditions)), find_warnings(bound, plan, values, exact, settled.reason, crossover), spec,
        memory_of(spec, plan, dtype, values), crossover,
    )  # fmt: skip


def _rank(spec: MLBTC, plan: Plan) -> Rank:
    return generic_rank(spec, build_graph(spec), plan)


def _single(spec: MLBTC, level: int) -> MLBTC:
    return MLBTC(spec.shape, [spec.levels[level]], spec.name)


def _slice(plan: Plan, level: int) -> Plan:
    return Plan(plan.shape, (plan.levels[level],), plan.tokens)


def _parameters(spec: MLBTC) -> Size:
    return total([product(spec.levels[level].factor_shape(factor)) for level, factor in spec.tensors])
