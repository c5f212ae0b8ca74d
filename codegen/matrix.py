"""Matrix specs to source."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from mlbtc.analysis import Report, analyze
from mlbtc.codegen.chain import build_matrix
from mlbtc.codegen.emit_torch import LINE, matrix_context, render, with_free_name
from mlbtc.codegen.initial import check_init
from mlbtc.codegen.kernel import Kernel
from mlbtc.codegen.lowering import lower, require_numbers
from mlbtc.codegen.nested import COMMENT as NESTED_COMMENT
from mlbtc.codegen.nested import is_nested, lower_nested
from mlbtc.codegen.program import Parameter, Program
from mlbtc.codegen.reference import reference
from mlbtc.codegen.structured import NativeMatrix
from mlbtc.codegen.targets import TARGETS, check_target
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.module import TritonMatrix
from mlbtc.codegen.triton.source import emit_kernels, module_context
from mlbtc.codegen.tuning import Candidate, Layout
from mlbtc.errors import CodegenError, PlanError
from mlbtc.graph import build_graph, check
from mlbtc.plan import Plan, build_plan
from mlbtc.plan.step import TOKENS
from mlbtc.spec.language import MLBTC
from mlbtc.spec.naming import class_name as class_name_of
from mlbtc.spec.sizes import evaluate

FEW_PRODUCTS = 2
"""To how many products the layout "fused" multiplies the factors of a level, if nothing else is said."""


def generate_matrix(
    spec: MLBTC,
    *,
    class_name: str | None = None,
    target: str = "auto",
    tokens: int | None = None,
    init: str = "dense",
    layout: Layout = "levels",
) -> str:
    """Return the source of a matrix spec: a torch module that imports torch only, one with Triton kernels, or C++.

    Args:
        spec: a spec whose symbols are bound or have defaults.
        class_name: the name of the class; None makes one of the spec's name.
        target: "torch", which is also what "auto" gives since it runs everywhere, "cpp", or "triton", a module that
            imports torch and triton only.
        tokens: the number of tokens per call for which the order of contractions is best, which may multiply factors
            with each other first; None for an order whose cost is that of one token, times T.
        init: the rule for initial values, one of `mlbtc.codegen.initial.INITS`; it draws the same for any tokens.
        layout: of the torch program, "levels" for one level and one factor after the other, "nested" for the factors
            of nested low rank side by side, "fused" for the factors of each level multiplied to two products first.

    Raises:
        CodegenError: there is no such rule, the class name is no identifier, or the layout is not one of the spec.
        PlanError: a symbol has no value.
        GraphError: the spec is not a matrix.
        BackendError: the target is not available, or a level has no Triton kernel.
        CodegenError: a factor has a name that the module needs itself.
    """
    check_target(target, TARGETS)
    check_init(init)
    check_tokens(tokens)
    bound = spec.bind_defaults()
    _check_factor_names(bound)
    if target == "cpp":
        return build_kernel(bound).source()
    if target == "triton":
        return _generate_triton(bound, class_name, init)
    products = FEW_PRODUCTS if layout == "fused" else None
    return matrix_source(bound, Candidate("torch", tokens, layout=layout, products=products), init, class_name)


def check_tokens(tokens: int | None) -> None:
    """Refuse what is no number of tokens per call.

    Raises:
        PlanError: saying what was found.
    """
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise PlanError(f"tokens is a positive number of tokens per call, or None; found {tokens!r}")


def matrix_source(spec: MLBTC, candidate: Candidate, init: str = "dense", class_name: str | None = None) -> str:
    """Return the source of the torch program of a candidate.

    Args:
        spec: without open symbols.
        candidate: its number of tokens, layout, products and chunk.
        init: as for `generate_matrix`.
        class_name: as for `generate_matrix`.

    Raises:
        CodegenError, PlanError, GraphError: as for `generate_matrix`.
    """
    _check_factor_names(spec)
    made = matrix_program(spec, candidate)
    report = analyze(spec)
    assert isinstance(report, Report)
    summary = f"{_summary(spec)} Needs torch only."
    header = _header(spec, made.plan, report)

    def emit(name: str) -> str:
        shown = made.program, summary, header, made.comments, name
        context = matrix_context(*shown, init, made.drawn, candidate.chunk)
        return render("matrix_torch.py.jinja", context=context)

    return with_free_name(class_name, class_name_of(spec.name), emit)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A candidate's program and what stands above and behind it.

    Attributes:
        program: what runs.
        plan: what it carries out, but for the order of levels.
        comments: one per level of the program.
        drawn: the program whose fans initial values are drawn by, the same one for every candidate.
    """

    program: Program
    plan: Plan
    comments: tuple[str, ...]
    drawn: Program


def matrix_program(spec: MLBTC, candidate: Candidate) -> Lowered:
    """Return the torch program of a candidate for a spec without open symbols.

    Raises:
        CodegenError, PlanError, GraphError: as for `generate_matrix`.
    """
    contraction = check(build_graph(spec))
    plan = build_plan(contraction, for_tokens=candidate.tokens, products=candidate.products)
    program = lower(spec, plan)
    drawn = program if candidate.tokens is candidate.products is None else lower(spec, build_plan(contraction))
    comments = tuple(str(level) for level in spec.levels)
    if _takes_nested(spec, candidate.layout, program == drawn):
        program, comments = lower_nested(spec, program), (NESTED_COMMENT,)
    return Lowered(program, plan, comments, drawn)


def _generate_triton(spec: MLBTC, class_name: str | None, init: str) -> str:
    """Return one file with the kernels and the module."""
    require_numbers(spec)
    plan = build_plan(check(build_graph(spec)))
    report = analyze(spec)
    assert isinstance(report, Report)
    kernels = plan_kernels(spec)
    summary = f"{_summary(spec)} Needs torch and triton only."
    program, header = lower(spec, plan), (*_header(spec, plan, report), "", *kernels.header)

    def emit(name: str) -> str:
        return emit_kernels(kernels, summary, header, module_context(program, kernels, name, init))

    return with_free_name(class_name, class_name_of(spec.name), emit)


def generate_kernels(spec: MLBTC) -> str:
    """Return the source of the Triton kernels of a matrix and of the operator around them, without a module.

    Args:
        spec: without open symbols.

    Raises:
        PlanError: a symbol has no value.
        GraphError: the spec is not a matrix.
        BackendError: a level has no kernel; the message says which, why, and what works.
    """
    require_numbers(spec)
    kernels = plan_kernels(spec)
    return emit_kernels(kernels, f"{_summary(spec)} Needs torch and triton only.", kernels.header)


def _summary(spec: MLBTC) -> str:
    return f"{spec.name}: a {spec.shape[0]} x {spec.shape[1]} structured matrix, emitted by mlbtc."


def matrix_factors(spec: MLBTC) -> tuple[Parameter, ...]:
    """Return the factors of a spec without open symbols, with the fans that initial values are drawn by."""
    return lower(spec, build_plan(check(build_graph(spec)))).parameters


def _takes_nested(spec: MLBTC, layout: Layout, one_by_one: bool) -> bool:
    """Return whether the program is the nested one; `one_by_one`: the plan multiplies no factors first."""
    if layout != "nested":
        return False
    if not (one_by_one and is_nested(spec)):
        raise CodegenError(
            "the layout 'nested' takes two or more low-rank levels, unpermuted and unplaced, whose counts of blocks "
            "divide the largest one and whose features are no more than the rows, with no factors multiplied first; "
            f"{spec.name!r} is none: take 'levels'"
        )
    return True


def _check_factor_names(spec: MLBTC) -> None:
    """Refuse names of factors that a module has other attributes for."""
    bases = (*NativeMatrix.__mro__, *TritonMatrix.__mro__)
    declared = {name for base in bases for name in getattr(base, "__annotations__", ())}
    taken = {*dir(NativeMatrix), *dir(TritonMatrix), *declared, *_EMITTED}
    for number, level in enumerate(spec.levels):
        for name in level.names:
            if name is not None and (name in taken or _GENERATED.fullmatch(name)):
                where = f"levels[{number}]" if spec.origin is None else spec.origin.where("levels", number)
                raise CodegenError(f"{where}: the module itself uses the name {name!r}: choose another for the factor")


_EMITTED = ("bias", "reset_parameters", "to_dense")
_GENERATED = re.compile(r"level\d+_(factor\d+|rows|columns)")


def build_kernel(spec: MLBTC, groups: int | None = None) -> Kernel:
    """Return the kernel of a spec, not yet built.

    Args:
        spec: a spec without open symbols.
        groups: groups of tokens in a chunk, at most; None for as many as the caches take.

    Raises:
        PlanError: a symbol has no value.
        GraphError: the spec is not a matrix.
    """
    require_numbers(spec)
    plan = build_plan(check(build_graph(spec)))
    report = analyze(spec)
    assert isinstance(report, Report)
    header = (_summary(spec), _header(spec, plan, report))
    return Kernel(class_name_of(spec.name), build_matrix(spec, plan), header, reference(spec), groups)


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
