"""Matrix specs to source and modules."""

from __future__ import annotations

import hashlib
import shlex
import textwrap
from typing import TYPE_CHECKING, Any

import torch

from mlbtc.analysis import Report, analyze
from mlbtc.codegen import native
from mlbtc.codegen.chain import build_matrix
from mlbtc.codegen.emit_torch import LINE, emit_matrix, with_free_name
from mlbtc.codegen.kernel import REAL, Kernel
from mlbtc.codegen.loading import load_class
from mlbtc.codegen.lowering import lower, require_numbers
from mlbtc.codegen.operator import register
from mlbtc.codegen.reference import reference
from mlbtc.codegen.structured import MultipliedOut, NativeMatrix, StructuredMatrix, native_class
from mlbtc.codegen.tuning import Candidate, recall
from mlbtc.errors import BackendError, PlanError
from mlbtc.graph import build_graph, check
from mlbtc.plan import Plan, build_plan
from mlbtc.plan.step import TOKENS
from mlbtc.spec.language import MLBTC, Level
from mlbtc.spec.naming import class_name as class_name_of
from mlbtc.spec.sizes import evaluate

if TYPE_CHECKING:
    from torch import nn

TARGETS = ("torch", "cpp")
"""Targets of a matrix."""


def check_target(target: str, targets: tuple[str, ...] = ("torch",)) -> None:
    """Refuse a target that this version cannot emit.

    Raises:
        BackendError: naming those that work.
    """
    if target not in (*targets, "auto"):
        raise BackendError(f"target {target!r} is not available in this version; available: {', '.join(targets)}")


def generate_matrix(
    spec: MLBTC, *, class_name: str | None = None, target: str = "auto", tokens: int | None = None
) -> str:
    """Return the source of a matrix spec: a torch module that imports torch only, or a C++ kernel.

    Args:
        spec: a spec whose symbols are bound or have defaults.
        class_name: the name of the class; None makes one of the spec's name.
        target: "torch", which is also what "auto" gives since it runs everywhere, or "cpp".
        tokens: the number of tokens per call for which the order of contractions is best, which may multiply factors
            with each other first; None for an order whose cost is that of one token, times T.

    Raises:
        PlanError: a symbol has no value.
        GraphError: the spec is not a matrix.
        BackendError: the target is not available.
    """
    check_target(target, TARGETS)
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
        raise PlanError(f"tokens is a positive number of tokens per call, or None; found {tokens!r}")
    bound = spec.bind_defaults()
    if target == "cpp":
        return build_kernel(bound).source()
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
    summary = f"{spec.name}: a {spec.shape[0]} x {spec.shape[1]} structured matrix, emitted by mlbtc."
    header = (summary, _header(spec, plan, report))
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

    Its torch program is emitted, stored in the cache and loaded from there; `module.source` shows it, `module.spec` is
    the spec with its symbols bound and `module.explain()` says which target runs and why. With the cpp target the
    module runs a C++ kernel, `module.cpp_source`, which is built at the first call; where a kernel cannot run (another
    device or dtype, a transform of torch.func) it runs its torch program. Parameters are the same for every target.

    Args:
        spec: a spec whose symbols are bound or have defaults.
        bias: whether to add a learnable vector.
        device: where parameters are made.
        dtype: of the parameters.
        tokens: as for `generate_matrix`; for the torch program.
        target: "torch", "cpp", or "auto" for cpp where the parameters are on the CPU and a C++ compiler is found.

    Raises:
        PlanError, GraphError: as for `generate_matrix`.
        BackendError: the target is not available, or it is cpp and there is no compiler.
    """
    check_target(target, TARGETS)
    bound = spec.bind_defaults()
    device, dtype = torch.device(device or torch.get_default_device()), dtype or torch.get_default_dtype()
    candidate, reason = choose(target, device, dtype, bound, tokens)
    made: Any = module_class(bound, candidate, target == "auto")(bias=bias, device=device, dtype=dtype)
    made.reason = reason
    return made  # type: ignore[no-any-return]


def choose(
    target: str, device: torch.device, dtype: torch.dtype, spec: MLBTC, tokens: int | None
) -> tuple[Candidate, str]:
    """Return how `compile_matrix` runs a matrix, and why: what autotune measured where it did, else by rule.

    Args:
        target: as for `compile_matrix`.
        device: where the parameters are.
        dtype: of the parameters.
        spec: without open symbols.
        tokens: per call, None where that is not known.

    Raises:
        BackendError: cpp was asked for and there is no compiler.
    """
    tuned = recall(spec, dtype, torch.get_num_threads(), tokens) if target == "auto" and device.type == "cpu" else None
    if tuned is not None:
        return tuned.best.candidate, tuned.reason
    chosen, reason = choose_target(target, device, dtype, spec)
    return Candidate(chosen, tokens), reason


def choose_target(target: str, device: torch.device, dtype: torch.dtype, spec: MLBTC | None = None) -> tuple[str, str]:
    """Return the target that `compile_matrix` compiles for, and why.

    Args:
        target: "torch", "cpp", or "auto" for the fastest one that can run.
        device: where the parameters are.
        dtype: of the parameters.
        spec: what is compiled; None for a spec that kernels are made for.

    Raises:
        BackendError: cpp was asked for and there is no compiler.
    """
    if target == "torch":
        return target, "asked for"
    if target == "cpp":
        return target, f"asked for, built with {shlex.join(native.require_compiler())}"
    if device.type != "cpu":
        return "torch", f"kernels run on the CPU, the parameters are on {device}"
    if dtype not in REAL:
        return "torch", f"there are no kernels for {dtype}"
    if spec is not None and _plain(spec):
        return "torch", "plain matrix products, for which the BLAS behind torch is faster than our kernels"
    found = native.compiler()
    if found is None:
        return "torch", f"there is no C++ compiler: {native.no_compiler()}"
    return "cpp", f"the CPU and a compiler ({found})"


def _plain(spec: MLBTC) -> bool:
    """Return whether a spec is dense or low rank without blocks and permutations, so that no step is batched."""
    dense = Level.einsum("i j -> i j").expression
    return all(
        (level.expression == dense or (level.shorthand or {}).get("blocks") == 1)
        and level.rows is level.columns is None
        for level in spec.levels
    )


def module_class(spec: MLBTC, candidate: Candidate, optional: bool) -> type[Any]:
    """Return the class of compiled modules for a spec, the same one each time.

    Args:
        spec: without open symbols.
        candidate: how it runs.
        optional: whether the torch program stands in for a kernel that cannot be built.
    """
    source = generate_matrix(spec, target="torch", tokens=candidate.tokens)
    key = (source, candidate, optional)
    if key not in _CLASSES:
        attributes: dict[str, Any] = {"spec": spec, "source": source, "candidate": candidate}
        attributes["__reduce_ex__"] = lambda module, protocol: (
            _restore,
            (spec, candidate, optional),
            module.__dict__.copy(),
        )
        base: type[StructuredMatrix] = MultipliedOut if candidate.dense else StructuredMatrix
        if candidate.target == "cpp":
            kernel = build_kernel(spec, candidate.groups)
            digest = hashlib.sha256(repr((kernel.matrix, kernel.groups)).encode()).hexdigest()[:24]
            attributes |= {"kernel": register(digest, kernel), "key": digest, "optional": optional}
            base = NativeMatrix
        _CLASSES[key] = native_class(load_class(source), base, attributes)
    return _CLASSES[key]


def _restore(spec: MLBTC, candidate: Candidate, optional: bool) -> Any:
    """Return a module without parameters, for pickle and copy: the class is emitted anew where it does not exist."""
    made: Any = module_class(spec, candidate, optional)
    return made.__new__(made)


_CLASSES: dict[tuple[str, Candidate, bool], type[Any]] = {}
