"""Program to PyTorch source: every decision is made here, the template holds layout only."""

from __future__ import annotations

import ast
import inspect
import keyword
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jinja2

from mlbtc.codegen.lowering import shape_text
from mlbtc.codegen.program import (
    Add,
    Arrange,
    Instruction,
    Matmul,
    Multiply,
    Order,
    Parameter,
    Program,
    Scale,
    Sum,
    Take,
)
from mlbtc.errors import CodegenError
from mlbtc.spec import permutation as runtime

LINE = 120


@dataclass(frozen=True, slots=True)
class MatrixContext:
    """What the template of a matrix module shows.

    Attributes:
        summary: the first line of the file.
        header: lines of the file's docstring: spec, costs, plan.
        class_name: a validated identifier.
        out_features, in_features: the shape.
        parameters: the factors.
        orders: pairs of a buffer name and the expression that makes it.
        functions: source of the functions the file needs.
        levels: pairs of a comment and the lines of code of a level.
        result: the variable that holds the result.
        stds: for each factor its name and the standard deviation of its initial values, as text.
    """

    summary: str
    header: tuple[str, ...]
    class_name: str
    out_features: int
    in_features: int
    parameters: tuple[Parameter, ...]
    orders: tuple[tuple[str, str], ...]
    functions: tuple[str, ...]
    levels: tuple[tuple[str, tuple[str, ...]], ...]
    result: str
    stds: tuple[tuple[str, str], ...]


def emit_matrix(
    program: Program, summary: str, header: tuple[str, ...], comments: tuple[str, ...], class_name: str
) -> str:
    """Return the source of a module for a program.

    Args:
        program: what `forward` does.
        summary: the first line of the file's docstring.
        header: its further lines.
        comments: one per level.
        class_name: the name of the class.

    Raises:
        CodegenError: the class name is no identifier.
    """
    context = MatrixContext(
        summary=summary,
        header=header,
        class_name=check_class_name(class_name),
        out_features=program.shape[0],
        in_features=program.shape[1],
        parameters=program.parameters,
        orders=tuple((order.name, order_expression(order)) for order in program.orders),
        functions=tuple(_functions(program.orders)),
        levels=tuple((c, tuple(_lines(level))) for c, level in zip(comments, program.levels, strict=True)),
        result=program.result,
        stds=tuple((p.name, _std(p, len(program.levels))) for p in program.parameters),
    )
    return render("matrix_torch.py.jinja", context=context)


def check_class_name(name: str) -> str:
    """Return `name` if it can name a class.

    Raises:
        CodegenError: it cannot.
    """
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise CodegenError(f"a class name must be a Python identifier, found {name!r}")
    return name


def with_free_name(name: str | None, default: str, emit: Callable[[str], str]) -> str:
    """Return emitted source whose class replaces no name that the source needs.

    Args:
        name: the class name that a user asked for, or None.
        default: the class name otherwise; it gets `Layer` behind it where it is taken.
        emit: makes the source for a class name.

    Raises:
        CodegenError: the name that was asked for is no identifier, or taken.
    """
    wanted = check_class_name(default if name is None else name)
    source = emit(wanted)
    taken = [found for found in top_level_names(source) if found == wanted]
    if len(taken) < 2:
        return source
    if name is not None:
        raise CodegenError(f"the file itself uses the name {name}: choose another class name, such as {name}Layer")
    return with_free_name(None, f"{wanted}Layer", emit)


def top_level_names(source: str) -> list[str]:
    """Return every name that a module defines or imports at its top level, as often as it does."""
    names: list[str] = []
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.append(name)
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names += [alias.asname or alias.name for alias in imported]
            case ast.Assign(targets=targets):
                names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("mlbtc.codegen", "templates"), jinja2.PackageLoader("mlbtc.attention", "templates")]
        ),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **context: object) -> str:
    """Fill a template of mlbtc.codegen or mlbtc.attention."""
    return _environment().get_template(template).render(**context)


def _std(parameter: Parameter, levels: int) -> str:
    """Return the standard deviation that keeps unit variance through a step and over the sum of the levels."""
    terms = parameter.fan_in * (levels if parameter.last_of_level else 1)
    return f"{terms}**-0.5"


def _lines(level: tuple[Instruction, ...]) -> list[str]:
    lines = []
    for instruction in level:
        code, comment = f"{instruction.result.name} = {_expression(instruction)}", f"# {instruction.result.comment}"
        # Behind the code where both fit into a line, else above it.
        lines += [f"{code}  {comment}"] if len(code) + len(comment) + 10 <= LINE else [comment, code]
    return lines


def _expression(instruction: Instruction) -> str:
    match instruction:
        case Take(source=source, order=order):
            return f"{source}.index_select(1, {order})"
        case Arrange():
            return _arrange(instruction)
        case Sum(source=source, dims=dims):
            return f"{source}.sum(dim=({shape_text(dims)},))"
        case Matmul(left=left, right=right, batched=batched):
            return f"torch.{'bmm' if batched else 'mm'}({left}, {right})"
        case Multiply(left=left, right=right):
            return f"{left} * {right}"
        case Scale(source=source, factor=factor):
            return f"{factor!r} * {source}"
        case Add(left=left, right=right):
            return f"{left} + {right}"
    raise AssertionError(f"unknown instruction {instruction!r}")


def _arrange(instruction: Arrange) -> str:
    text = instruction.source
    if instruction.split is not None:
        text += f".reshape({shape_text(instruction.split)})"
    if instruction.permutation is not None:
        text += f".permute({shape_text(instruction.permutation)})"
    if instruction.merge is not None:
        text += f".reshape({shape_text(instruction.merge)})"
    return text


def _functions(orders: tuple[Order, ...]) -> list[str]:
    named = [order.permutation for order in orders if isinstance(order.permutation, str)]
    sources = []
    if "bit_reversal" in named:
        sources.append(inspect.getsource(runtime.bit_reversal))
    if any(name.startswith("stride") for name in named):
        sources.append(inspect.getsource(runtime.stride_order))
    return [source.rstrip() for source in sources]


def order_expression(order: Order) -> str:
    """Return the expression for a stored order: a call for a named permutation, a literal for a listed one."""
    if isinstance(order.permutation, tuple):
        text = f"[{', '.join(map(str, order.permutation))}]"
    else:
        stride = runtime.stride_of(order.permutation)
        text = f"bit_reversal({order.size})" if stride is None else f"stride_order({order.size}, {stride})"
    tensor = f"torch.tensor({text})"
    wrapped = textwrap.fill(tensor, LINE - 12, subsequent_indent=" " * 16) if len(tensor) > LINE - 12 else tensor
    return f"torch.argsort({wrapped})" if order.inverse else wrapped
