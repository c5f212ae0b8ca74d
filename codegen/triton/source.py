"""Matrix specs to Triton source: a kernel per level and direction, the operator around them, and a module."""

from __future__ import annotations

import hashlib
import string
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlbtc.codegen.emit_torch import LINE, MatrixContext, comment_lines, matrix_context, render
from mlbtc.codegen.program import Program
from mlbtc.codegen.triton import nested_source
from mlbtc.codegen.triton.gradients import GradientContext, gradient_context, gradient_lines, gradient_table
from mlbtc.codegen.triton.kernels import Entry, KernelContext, Table, kernel_context, table
from mlbtc.codegen.triton.matrix import ELEMENT_BYTES, LevelKernels, MatrixKernels, NestedKernels
from mlbtc.codegen.triton.nested_source import NestedContext
from mlbtc.codegen.triton.tiles import TilePlan
from mlbtc.codegen.triton.two_factor import TwoFactor
from mlbtc.plan import LevelPlan
from mlbtc.plan.step import TOKENS


@dataclass(frozen=True, slots=True)
class TritonContext:
    """What the template of a file of kernels shows.

    Attributes:
        summary: the first line of the file.
        header: further lines of its docstring.
        in_features, out_features: the shape.
        kernels: of levels by themselves, in their order.
        gradients: of the factors of levels.
        features: of nested low rank, from the input to the features of all levels.
        outputs: from there to the output.
        tables: which kernel runs with which tiles.
        product: lines that multiply.
        to_input: lines that make the gradient of the input.
        to_factors: lines that make those of the factors.
    """

    summary: str
    header: tuple[str, ...]
    in_features: int
    out_features: int
    kernels: tuple[KernelContext, ...]
    gradients: tuple[GradientContext, ...]
    features: tuple[NestedContext, ...]
    outputs: tuple[NestedContext, ...]
    tables: tuple[Table, ...]
    product: tuple[str, ...]
    to_input: tuple[str, ...]
    to_factors: tuple[str, ...]


def emit_kernels(
    kernels: MatrixKernels, summary: str, header: tuple[str, ...], module: MatrixContext | None = None
) -> str:
    """Return the source of a matrix: it needs torch and triton only.

    Args:
        kernels: what is emitted.
        summary: the first line of the file's docstring.
        header: its further lines.
        module: what stands behind the kernels; None for `multiply` and nothing else.
    """
    context = _context(kernels, textwrap.fill(summary, LINE - 3), header)
    digest = hashlib.sha256(repr((context, module)).encode()).hexdigest()[:24]
    return render("triton_matrix.py.jinja", context=context, module=module, operator=f"mlbtc_triton::product_{digest}")


def _context(kernels: MatrixKernels, summary: str, header: tuple[str, ...]) -> TritonContext:
    shape = int(kernels.spec.shape[1]), int(kernels.spec.shape[0])
    if kernels.nested is not None:
        return _nested_context(kernels.nested, summary, header, *shape)
    directions = [(f"level{n}_{way}", getattr(level, way)) for n, level in enumerate(kernels.levels) for way in _WAYS]
    taken = [(number, level) for number, level in enumerate(kernels.levels) if level.gradients]
    pairs = zip(range(len(kernels.levels)), kernels.levels, kernels.plans, strict=True)
    return TritonContext(
        summary,
        header,
        *shape,
        kernels=tuple(kernel for name, plans in directions for kernel in _kernels(name, plans)),
        features=(),
        outputs=(),
        gradients=tuple(gradient_context(f"level{n}_gradients", level.factor) for n, level in taken),
        tables=(
            *(_table(name, plans) for name, plans in directions),
            *(gradient_table(f"level{n}_gradients", level.gradients) for n, level in taken),
        ),
        product=_sum_of_levels(kernels, "forward", "x", "bias"),
        to_input=_sum_of_levels(kernels, "backward", "grad", "None"),
        to_factors=tuple(line for pair in pairs for line in _gradients(*pair)),
    )


def _nested_context(
    kernels: NestedKernels, summary: str, header: tuple[str, ...], in_features: int, out_features: int
) -> TritonContext:
    matrix, turned = kernels.matrix, kernels.matrix.transposed()
    pairs = [
        nested_source.contexts(nested_source.FORWARD, matrix),
        nested_source.contexts(nested_source.BACKWARD, turned),
    ]
    return TritonContext(
        summary,
        header,
        in_features,
        out_features,
        kernels=(),
        gradients=(),
        features=tuple(features for features, _ in pairs),
        outputs=tuple(outputs for _, outputs in pairs),
        tables=(
            *nested_source.tables(nested_source.FORWARD, kernels.forward),
            *nested_source.tables(nested_source.BACKWARD, kernels.backward),
        ),
        product=nested_source.product(nested_source.FORWARD, matrix, "x", "bias"),
        to_input=nested_source.product(nested_source.BACKWARD, turned, "grad", "None"),
        to_factors=nested_source.gradients(matrix),
    )


def module_context(program: Program, kernels: MatrixKernels, class_name: str, init: str) -> MatrixContext:
    """Return what the template shows of the module behind the kernels.

    Args:
        program: of the spec, for its parameters.
        kernels: of the same spec.
        class_name: of the module.
        init: the rule for initial values.

    Raises:
        CodegenError: the class name is no identifier.
    """
    comments = tuple(str(level) for level in kernels.spec.levels)
    factors = tuple(f"    self.{parameter.name}," for parameter in program.parameters)
    code = (tuple(line for text in comments for line in comment_lines(text)), ("factors = [", *factors, "]"))
    context = matrix_context(program, "", (), comments, class_name, init)
    return replace(
        context,
        functions=(),
        levels=(code,),
        counts_tokens=False,
        result="multiply(x, factors, bias)",
        fused_bias=True,
    )


_WAYS = ("forward", "backward")


def _named(name: str, plan: TilePlan) -> str:
    """Return the name of the kernel that runs a plan: its form depends on whether the outer sum is cut."""
    return name if plan.whole else f"{name}_in_pieces"


def _kernels(name: str, plans: Sequence[TilePlan]) -> tuple[KernelContext, ...]:
    forms = {_named(name, plan): plan for plan in plans}
    return tuple(kernel_context(form, plan) for form, plan in forms.items())


def _table(name: str, plans: Sequence[TilePlan]) -> Table:
    entries = []
    for plan in plans:
        tiles = {letter: getattr(plan.tiles, letter) for letter in "tcbsda"}
        kernel, run = _named(name, plan), (plan.tiles.warps, plan.tiles.stages)
        entries.append(Entry(plan.element_bytes, kernel, plan.programs, tiles, *run))
    return table(name, entries)


def _sum_of_levels(kernels: MatrixKernels, way: str, source: str, bias: str) -> tuple[str, ...]:
    """Return the calls of one direction; between levels the sum is in float32, and the last one adds the bias."""
    lines, last = [], len(kernels.levels) - 1
    for number, level in enumerate(kernels.levels):
        factor = level.factor if way == "forward" else level.factor.transposed()
        operands = f"{source}, [factors[{factor.right}], factors[{factor.left}]], {factor.out_features}"
        added = f"**_added({bias if number == last else 'None'}{', y' if number else ''})"
        options = added if number == last else f"torch.float32, {added}"
        call = f"_run(LEVEL{number}_{way.upper()}, {operands}, {options})"
        lines.append(f"return {call}" if number == last else f"y = {call}")
    return tuple(lines)


def _gradients(number: int, level: LevelKernels, plan: LevelPlan) -> tuple[str, ...]:
    """Return the lines that add the gradients of a level's factors: a call of the kernel, or products of torch."""
    name = f"level{number}_gradients"
    called, multiplied = gradient_lines(name, level.factor), _products(level.factor, plan)
    if len(level.gradients) == len(ELEMENT_BYTES):
        return called
    if not level.gradients:
        return multiplied
    condition = f"if x.element_size() in {name.upper()}:"
    return condition, *(f"    {line}" for line in called), "else:", *(f"    {line}" for line in multiplied)


def _products(factor: TwoFactor, plan: LevelPlan) -> tuple[str, ...]:
    """Return the two steps of a level's plan, differentiated."""
    first, second = plan.steps
    assert first.right is not None
    assert second.right is not None
    sizes = {name: int(size) for name, size in plan.sizes}
    letters = dict(zip((TOKENS, *sizes), string.ascii_letters, strict=False))

    def text(names: Sequence[str]) -> str:
        return "".join(letters[name] for name in names)

    def shape(names: Sequence[str]) -> str:
        return ", ".join(["-1", *(str(sizes[name]) for name in names if name != TOKENS)])

    comment = f"# {' '.join(first.result.indices)}"
    x, middle, y = text(plan.activation.indices), text(first.result.indices), text(plan.output)
    right, left = text(first.right.indices), text(second.right.indices)
    grad = f"grad.reshape({shape(plan.output)})"
    return (
        f"inputs = x.reshape({shape(plan.activation.indices)})  # {' '.join(plan.activation.indices)}",
        f"outputs = {grad if factor.scale == 1 else f'{factor.scale!r} * {grad}'}  # {' '.join(plan.output)}",
        f'middle = torch.einsum("{x},{right}->{middle}", inputs, factors[{factor.right}])  {comment}',
        f'_add(found, {factor.left}, torch.einsum("{y},{middle}->{left}", outputs, middle))',
        f'middle = torch.einsum("{y},{left}->{middle}", outputs, factors[{factor.left}])',
        f'_add(found, {factor.right}, torch.einsum("{middle},{x}->{right}", middle, inputs))',
    )
