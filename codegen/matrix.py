"""Matrix specs to source and modules."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from mlbtc.analysis import Report, analyze
from mlbtc.codegen.emit_torch import LINE, emit_matrix, with_free_name
from mlbtc.codegen.loading import load_class
from mlbtc.codegen.lowering import lower
from mlbtc.errors import BackendError, PlanError
from mlbtc.graph import build_graph, check
from mlbtc.plan import Plan, build_plan
from mlbtc.plan.step import TOKENS
from mlbtc.spec.language import MLBTC
from mlbtc.spec.naming import class_name as class_name_of
from mlbtc.spec.sizes import evaluate

if TYPE_CHECKING:
    import torch
    from torch import nn

TARGETS = ("torch",)
"""Targets that this version can emit."""


def check_target(target: str) -> None:
    """Refuse a target that this version cannot emit.

    Raises:
        BackendError: naming those that work.
    """
    if target not in (*TARGETS, "auto"):
        raise BackendError(f"target {target!r} is not available in this version; available: {', '.join(TARGETS)}")


def generate_matrix(
    spec: MLBTC, *, class_name: str | None = None, target: str = "auto", tokens: int | None = None
) -> str:
    """Return the source of a module for a matrix spec; it imports torch only.

    Args:
        spec: a spec whose symbols are bound or have defaults.
        class_name: the name of the class; None makes one of the spec's name.
        target: "torch", or "auto" for the best one available.
        tokens: the number of tokens per call for which the order of contractions is best, which may multiply factors
            with each other first; None for an order whose cost is that of one token, times T.

    Raises:
        PlanError: a symbol has no value.
        GraphError: the spec is not a matrix.
        BackendError: the target is not available.
    """
    check_target(target)
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise PlanError(f"tokens is a positive number of tokens per call, or None; found {tokens!r}")
    bound = spec.bind_defaults()
    plan = build_plan(check(build_graph(bound)), for_tokens=tokens)
    program = lower(bound, plan)
    report = analyze(bound)
    assert isinstance(report, Report)
    comments = tuple(str(level) for level in bound.levels)
    summary = (
        f"{bound.name}: a {bound.shape[0]} x {bound.shape[1]} structured matrix, emitted by mlbtc. Needs torch only."
    )
    header = _header(bound, plan, report)
    return with_free_name(
        class_name, class_name_of(bound.name), lambda name: emit_matrix(program, summary, header, comments, name)
    )


def _header(spec: MLBTC, plan: Plan, report: Report) -> tuple[str, ...]:
    dense = dict(report.dense)["parameters"]
    per_call, one = (int(evaluate(plan.macs, {TOKENS: count})) for count in (0, 1))
    once = f" and {per_call:,} once per call" if per_call else ""
    costs = [
        f"parameters  {int(report.parameters):,} (dense {int(dense):,})",
        f"MACs        {one - per_call:,} per token{once} (dense {int(dense):,})",
        f"rank        {int(report.rank):,} ({report.certainty}: {report.reason})",
    ]
    steps = [f"level {number}: {step}" for number, level in enumerate(plan.levels) for step in level.steps]
    yaml = spec.to_yaml(width=LINE - 20).rstrip().splitlines()
    parts = [("Spec", yaml), ("Costs", _wrapped(costs)), ("Plan for T tokens", _wrapped(steps))]
    lines: list[str] = []
    for title, body in parts:
        lines += [*([""] if lines else []), f"{title}:", *(f"    {line}" for line in body)]
    return tuple(lines)


def _wrapped(lines: list[str]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, LINE - 4, subsequent_indent="    ")]


def compile_matrix(
    spec: MLBTC,
    *,
    bias: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokens: int | None = None,
    target: str = "auto",
) -> nn.Module:
    """Return a module that multiplies by the matrix, (..., in) to (..., out).

    Its source is emitted, stored in the cache and loaded from there; `module.source` shows it, `module.spec` is the
    spec with its symbols bound.

    Args:
        spec: a spec whose symbols are bound or have defaults.
        bias: whether to add a learnable vector.
        device: where parameters are made.
        dtype: of the parameters.
        tokens: as for `generate_matrix`.
        target: as for `generate_matrix`.

    Raises:
        PlanError, GraphError, BackendError: as for `generate_matrix`.
    """
    source = generate_matrix(spec, target=target, tokens=tokens)
    module: Any = load_class(source)(bias=bias, device=device, dtype=dtype)
    module.spec = spec.bind_defaults()
    module.source = source
    return module  # type: ignore[no-any-return]
