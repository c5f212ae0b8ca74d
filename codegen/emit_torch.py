"""Program to PyTorch source: every decision is made here, the template holds layout only."""

from __future__ import annotations

import ast
import inspect
import keyword
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import jinja2

from mlbtc.codegen.initial import INITS, std_texts
from mlbtc.codegen.lowering import shape_text
from mlbtc.codegen.program import (
    TOKENS_DIM,
    Add,
    Arrange,
    Expand,
    Instruction,
    Join,
    Matmul,
    Order,
    Parameter,
    Program,
    Scale,
    Slice,
    Sum,
    Take,
    Times,
    split_once,
)
from mlbtc.codegen.runtime import times
from mlbtc.errors import CodegenError
from mlbtc.spec.permutation import bit_reversal

LINE = 120
TOKENS_USED = re.compile(rf"^[^#]*\b{TOKENS_DIM}\b")


@dataclass(frozen=True, slots=True)
class MatrixContext:
    """What the template of a matrix module shows.

    Attributes:
        summary: the first line of the file.
        header: lines of the file's docstring: spec, costs, plan.
        class_name: a validated identifier.
        out_features, in_features: the shape.
        parameters: lines of code that make the factors.
        orders: for each stored order the name of its buffer, its size and the expression that makes it.
        functions: source of the constants and functions the file needs.
        levels: pairs of the lines of a comment and the lines of code of a level.
        counts_tokens: whether a line of code needs the number of tokens.
        result: the variable that holds the result.
        rule: what the initial values are, as a sentence.
        stds: for each factor its name and the standard deviation of its initial values, as text.
        chunk: how many tokens go through `levels` at once on a CPU; None for all of them.
        once: with a chunk, the lines of code that need factors only.
        fused_bias: whether the product adds the bias.
    """

    summary: str
    header: tuple[str, ...]
    class_name: str
    out_features: int
    in_features: int
    parameters: tuple[str, ...]
    orders: tuple[tuple[str, int, str], ...]
    functions: tuple[str, ...]
    levels: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    counts_tokens: bool
    result: str
    rule: str
    stds: tuple[tuple[str, str], ...]
    chunk: int | None = None
    once: tuple[str, ...] = ()
    fused_bias: bool = False


def matrix_context(
    program: Program,
    summary: str,
    header: tuple[str, ...],
    comments: tuple[str, ...],
    class_name: str,
    init: str = "dense",
    drawn: Program | None = None,
    chunk: int | None = None,
) -> MatrixContext:
    """Return what the template of a module shows.

    Args:
        program: what `forward` does.
        summary: the first line of the file's docstring.
        header: its further lines.
        comments: one per level.
        class_name: the name of the class.
        init: the rule for initial values.
        drawn: the program whose fans the rule uses; None for the first one. Another order of contractions has others.
        chunk: how many tokens `forward` takes at once on a CPU; None for all of them.

    Raises:
        CodegenError: the class name is no identifier.
    """
    functions = needed_functions([program])
    once, program = split_once(program) if chunk else ((), program)
    fused = _with_bias(program)
    program = fused or program
    parts = [*zip(comments, program.levels, strict=True)]
    parts += [("the rows of the levels together", program.assembly)] if program.assembly else []
    width = LINE - (4 if chunk else 0)
    levels = tuple((comment_lines(comment, width), code_lines(level, width)) for comment, level in parts)
    return MatrixContext(
        summary=textwrap.fill(summary, LINE - 3),
        header=header,
        class_name=check_class_name(class_name),
        out_features=program.shape[0],
        in_features=program.shape[1],
        parameters=tuple(line for parameter in program.parameters for line in parameter_lines(parameter)),
        orders=tuple((order.name, order.size, order_expression(order)) for order in program.orders),
        functions=functions,
        levels=levels,
        counts_tokens=any(TOKENS_USED.search(line) for _, lines in levels for line in lines),
        result=program.result,
        rule=INITS[init],
        stds=tuple(std_texts(drawn or program, init).items()),
        chunk=chunk,
        once=code_lines(once),
        fused_bias=fused is not None,
    )


def _with_bias(program: Program) -> Program | None:
    """Return a program whose last product adds the bias, which saves a pass over the result; None where it cannot."""
    last = program.levels[-1][-1] if program.levels[-1] else None
    if len(program.levels) > 1 or program.assembly or not isinstance(last, Matmul) or last.batched:
        return None
    return replace(program, levels=((*program.levels[0][:-1], replace(last, biased=True)),))


def check_class_name(name: str) -> str:
    """Return `name` if it can name a class.

    Raises:
        CodegenError: it cannot.
    """
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise CodegenError(f"a class name must be a Python identifier, found {name!r}")
    if name.startswith("__"):
        raise CodegenError(f"Python itself uses names such as {name}: choose another class name")
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
    if wanted not in used_names(source):
        return source
    if name is not None:
        raise CodegenError(f"the file itself uses the name {name}: choose another class name, such as {name}Layer")
    return with_free_name(None, f"{wanted}Layer", emit)


def used_names(source: str) -> set[str]:
    """Return every name that a module imports, defines before the class it ends with, or calls."""
    tree = ast.parse(source)
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = {called.id for called in calls if isinstance(called, ast.Name)}
    for node in tree.body[:-1]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
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


def parameter_lines(parameter: Parameter) -> list[str]:
    """Return the lines that make a factor, laid out as a formatter would."""
    tensor = f"torch.empty({', '.join(map(str, parameter.shape))}, **new)"
    code, comment = f"self.{parameter.name} = nn.Parameter({tensor})", f"# {' '.join(parameter.indices)}"
    if len(code) + len(comment) + 10 <= LINE:
        return [f"{code}  {comment}"]
    whole = len(code) + 8 <= LINE
    return [comment, code] if whole else [comment, f"self.{parameter.name} = nn.Parameter(", f"    {tensor}", ")"]


def comment_lines(text: str, width: int = LINE) -> tuple[str, ...]:
    """Return a text as the lines of a comment."""
    return tuple(textwrap.wrap(text, width - 8, initial_indent="# ", subsequent_indent="#     "))


def code_lines(level: tuple[Instruction, ...], width: int = LINE) -> tuple[str, ...]:
    """Return the statements of a level's instructions, each with the indices of its result; two indents are added."""
    lines = []
    for instruction in level:
        name, comment = instruction.result.name, f"# {instruction.result.comment}"
        parts = [f"{name} = {_expression(instruction)}"]
        if isinstance(instruction, Arrange) and len(parts[0]) > width - 8:
            parts = [f"{name} = {source}{call}" for source, call in _calls(instruction)]
        if isinstance(instruction, Matmul) and len(parts[0]) > width - 8:
            parts = [f"{name} = (", *_choice_lines(_expression(instruction), width), ")"]
        if isinstance(instruction, Join) and len(parts[0]) > width - 8:
            parts = [f"{name} = torch.cat(", *_joined_lines(instruction, width), ")"]
        # Behind the code where both fit into a line, else above it.
        fits = len(parts[-1]) + len(comment) + 10 <= width
        lines += [*parts[:-1], f"{parts[-1]}  {comment}"] if fits else [*comment_lines(comment[2:], width), *parts]
    return tuple(lines)


def _expression(instruction: Instruction) -> str:
    match instruction:
        case Take(source=source, order=order):
            return f"{source}.index_select(1, {order})"
        case Slice(source=source, start=start, stop=stop):
            return f"{source}[:, {start}:{stop}]"
        case Join(sources=sources, dim=dim):
            return f"torch.cat(({', '.join(_joined(sources))}), {dim})"
        case Expand(source=source, shape=shape):
            return f"{source}.expand({shape_text(shape)})"
        case Arrange():
            return _arrange(instruction)
        case Sum(source=source, dims=dims):
            return f"{source}.sum(dim={dims[0] if len(dims) == 1 else dims})"
        case Matmul(left=left, right=right, biased=True):
            added = f"torch.addmm(bias.to({left}.dtype), {left}, {right})"
            return f"torch.mm({left}, {right}) if bias is None else {added}"
        case Matmul(left=left, right=right, batched=batched):
            return f"torch.{'bmm' if batched else 'mm'}({left}, {right})"
        case Times(left=left, right=right):
            return f"times({left}, {right})"
        case Scale(source=source, factor=factor):
            return f"{factor!r} * {source}"
        case Add(left=left, right=right):
            return f"{left} + {right}"
    raise AssertionError(f"unknown instruction {instruction!r}")


def _choice_lines(text: str, width: int) -> list[str]:
    """Return a long choice between two expressions, broken as a formatter would."""
    if len(text) + 4 <= width - 8:
        return [f"    {text}"]
    first, condition, other = re.split(" (?=if |else )", text)
    return [f"    {first}", f"    {condition}", f"    {other}"]


def _joined(sources: tuple[str | int, ...]) -> list[str]:
    like = next(source for source in sources if isinstance(source, str))
    return [s if isinstance(s, str) else f"{like}.new_zeros({TOKENS_DIM}, {s})" for s in sources]


def _joined_lines(instruction: Join, width: int) -> list[str]:
    """Return the arguments of a long torch.cat, broken as a formatter would."""
    values, dim = _joined(instruction.sources), instruction.dim
    whole = f"    ({', '.join(values)}),"
    if len(whole) + 2 <= width - 8:
        return [f"{whole} {dim}"]
    return [
        *([whole] if len(whole) <= width - 8 else ["    (", *(f"        {v}," for v in values), "    ),"]),
        f"    {dim},",
    ]


def _arrange(instruction: Arrange) -> str:
    return instruction.source + "".join(call for _, call in _calls(instruction))


def _calls(instruction: Arrange) -> list[tuple[str, str]]:
    """Return pairs of what a call is made on, where it stands alone, and the call."""
    parts = (("reshape", instruction.split), ("permute", instruction.permutation), ("reshape", instruction.merge))
    calls = [f".{method}({shape_text(shape)})" for method, shape in parts if shape is not None]
    return list(zip([instruction.source, *[instruction.result.name] * (len(calls) - 1)], calls, strict=True))


def needed_functions(programs: Sequence[Program]) -> tuple[str, ...]:
    """Return the source of the constants and functions that programs use."""
    orders = tuple(order for program in programs for order in program.orders)
    instructions = (i for program in programs for level in program.levels for i in level)
    elementwise = any(isinstance(i, Times) for i in instructions)
    products = [inspect.getsource(times).rstrip()] if elementwise else []
    return (*order_constants(orders), *order_functions(orders), *products)


def order_functions(orders: tuple[Order, ...]) -> list[str]:
    """Return the source of the functions that make the named permutations."""
    named = any(isinstance(order.permutation, str) for order in orders)
    return [inspect.getsource(bit_reversal).rstrip()] if named else []


def order_expression(order: Order) -> str:
    """Return the expression for a stored order: a call for a named permutation, a constant for a listed one."""
    if isinstance(order.permutation, tuple):
        text = order.name.upper()
    else:
        text = f"bit_reversal({order.size})"
    return f"torch.argsort(torch.tensor({text}))" if order.inverse else f"torch.tensor({text})"


def order_constants(orders: tuple[Order, ...]) -> tuple[str, ...]:
    """Return the listed permutations as constants, many positions to a line."""
    listed = [(order.name.upper(), order.permutation) for order in orders if isinstance(order.permutation, tuple)]
    constants = []
    for name, positions in listed:
        lines = textwrap.wrap(", ".join(map(str, positions)), LINE, initial_indent="    ", subsequent_indent="    ")
        constants.append("\n".join(["# fmt: off", f"{name} = [", *lines, "]", "# fmt: on"]))
    return tuple(constants)
