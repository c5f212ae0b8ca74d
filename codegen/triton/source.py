"""Matrix specs to Triton source: a kernel per level and direction, the operator around them, and a module."""

from __future__ import annotations

import hashlib
import string
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mlbtc.codegen.emit_torch import LINE, MatrixContext, comment_lines, matrix_context, render
from mlbtc.codegen.program import Program
from mlbtc.codegen.triton.kernels import KernelContext, kernel_context
from mlbtc.codegen.triton.tiles import TilePlan, plan_tiles
from mlbtc.codegen.triton.two_factor import TwoFactor, two_factors
from mlbtc.graph import build_graph, check
from mlbtc.plan import LevelPlan, build_plan
from mlbtc.plan.step import TOKENS
from mlbtc.spec.language import MLBTC

ELEMENT_BYTES = (2, 4)
"""What kernels are tiled for: bfloat16 and float16, and float32."""


@dataclass(frozen=True, slots=True)
class LevelKernels:
    """The kernels of one level.

    Attributes:
        factor: the level.
        forward: for each element size the tiles of the product.
        backward: those of the product with the transposed matrix.
    """

    factor: TwoFactor
    forward: tuple[TilePlan, ...]
    backward: tuple[TilePlan, ...]


@dataclass(frozen=True, slots=True)
class MatrixKernels:
    """All kernels of a matrix.

    Attributes:
        spec: without open symbols.
        levels: one per level.
        plans: of the levels, for the gradients that torch computes.
    """

    spec: MLBTC
    levels: tuple[LevelKernels, ...]
    plans: tuple[LevelPlan, ...]

    def describe(self, element_bytes: int = 2) -> str:
        """Return the tiles of the levels and their multiply-adds, a line per level."""
        size = ELEMENT_BYTES.index(element_bytes)
        return "\n".join(f"level {number}: {level.forward[size]}" for number, level in enumerate(self.levels))

    def __str__(self) -> str:
        return self.describe()

    @property
    def header(self) -> tuple[str, ...]:
        """Lines for the docstring of an emitted file."""
        lines = [line for size in ELEMENT_BYTES for line in self.describe(size).splitlines()]
        wrapped = (part for line in lines for part in textwrap.wrap(line, LINE - 4, subsequent_indent="    "))
        return ("Kernels:", *(f"    {line}" for line in wrapped))


@dataclass(frozen=True, slots=True)
class Table:
    """A dictionary of the emitted file: its name and its lines."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TritonContext:
    """What the template of a file of kernels shows.

    Attributes:
        summary: the first line of the file.
        header: further lines of its docstring.
        in_features, out_features: the shape.
        kernels: in the order of the levels.
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
    tables: tuple[Table, ...]
    product: tuple[str, ...]
    to_input: tuple[str, ...]
    to_factors: tuple[str, ...]


@lru_cache(maxsize=256)
def plan_kernels(spec: MLBTC) -> MatrixKernels:
    """Plan the kernels of a matrix.

    Args:
        spec: without open symbols.

    Raises:
        BackendError: a level has no kernel; the message says which, why, and what works.
    """
    plan = build_plan(check(build_graph(spec)))
    levels = []
    for factor in two_factors(spec, plan):
        forward, backward = (
            tuple(plan_tiles(direction, size) for size in ELEMENT_BYTES) for direction in (factor, factor.transposed())
        )
        levels.append(LevelKernels(factor, forward, backward))
    return MatrixKernels(spec, tuple(levels), plan.levels)


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
    directions = [(f"level{n}_{way}", getattr(level, way)) for n, level in enumerate(kernels.levels) for way in _WAYS]
    context = TritonContext(
        summary=textwrap.fill(summary, LINE - 3),
        header=header,
        in_features=int(kernels.spec.shape[1]),
        out_features=int(kernels.spec.shape[0]),
        kernels=tuple(kernel for name, plans in directions for kernel in _kernels(name, plans)),
        tables=tuple(_table(name, plans) for name, plans in directions),
        product=_sum_of_levels(kernels, "forward", "x", ", bias=bias"),
        to_input=_sum_of_levels(kernels, "backward", "grad", ""),
        to_factors=tuple(
            line for pair in zip(kernels.levels, kernels.plans, strict=True) for line in _gradients(*pair)
        ),
    )
    digest = hashlib.sha256(repr((context, module)).encode()).hexdigest()[:24]
    return render("triton_matrix.py.jinja", context=context, module=module, operator=f"mlbtc_triton::product_{digest}")


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
    lines = []
    for plan in plans:
        tiles = ", ".join(f'"TILE_{letter.upper()}": {getattr(plan.tiles, letter)}' for letter in "tcbsda")
        options = f'"num_warps": {plan.tiles.warps}, "num_stages": {plan.tiles.stages}, "enable_fp_fusion": True'
        lines += [
            f"{plan.element_bytes}: (",
            f"    {_named(name, plan)},",
            f"    {plan.programs},",
            f"    {{{tiles}}},",
            f"    {{{options}}},",
            "),",
        ]
    return Table(name.upper(), tuple(lines))


def _sum_of_levels(kernels: MatrixKernels, way: str, source: str, bias: str) -> tuple[str, ...]:
    """Return the calls of one direction; between levels the sum is in float32, and the last one adds the bias."""
    lines, last = [], len(kernels.levels) - 1
    for number, level in enumerate(kernels.levels):
        factor = level.factor if way == "forward" else level.factor.transposed()
        operands = f"{source}, factors[{factor.right}], factors[{factor.left}], {factor.out_features}"
        options = bias if number == last else ", dtype=torch.float32"
        call = f"_run(LEVEL{number}_{way.upper()}, {operands}{options}{', earlier=y' if number else ''})"
        lines.append(f"return {call}" if number == last else f"y = {call}")
    return tuple(lines)


def _gradients(level: LevelKernels, plan: LevelPlan) -> tuple[str, ...]:
    """Return the lines that add the gradients of a level's factors: the two steps of its plan, differentiated."""
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
    factor = level.factor
    return (
        f"inputs = x.reshape({shape(plan.activation.indices)})  # {' '.join(plan.activation.indices)}",
        f"outputs = {grad if factor.scale == 1 else f'{factor.scale!r} * {grad}'}  # {' '.join(plan.output)}",
        f'middle = torch.einsum("{x},{right}->{middle}", inputs, factors[{factor.right}])  {comment}',
        f'_add(found, {factor.left}, torch.einsum("{y},{middle}->{left}", outputs, middle))',
        f'middle = torch.einsum("{y},{left}->{middle}", outputs, factors[{factor.left}])',
        f'_add(found, {factor.right}, torch.einsum("{middle},{x}->{right}", middle, inputs))',
    )
