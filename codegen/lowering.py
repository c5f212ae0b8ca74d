"""Plan to program: each pairwise step becomes one (batched) matrix product between reshapes that cost little.

The layout rule, measured on BTT (design: "What the torch target should know"): factors stand on the left with tokens
innermost, so that the transposition between two steps moves long runs; the last step puts tokens first, so that its
result is almost the layout of the output, and so does a step whose factor would have to be read across its rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mlbtc.codegen.program import (
    TOKENS_DIM,
    Add,
    Arrange,
    Dim,
    Instruction,
    Join,
    Matmul,
    Order,
    Parameter,
    Program,
    Scale,
    Shape,
    Slice,
    Sum,
    Take,
    Times,
    Value,
)
from mlbtc.errors import PlanError
from mlbtc.plan.build import LevelPlan, Plan
from mlbtc.plan.step import HEADS, TOKENS, Operand, Step
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.permutation import Permutation, stride_of
from mlbtc.spec.place import Place, ranges

Groups = tuple[tuple[str, ...], ...]

_THIN = 16
"""Columns of a product that fill the registers of a CPU: thinner ones are two to three times faster the other way."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a term of a sum does beside its plan, as a level does: it moves inputs and outputs and scales."""

    scale: float | int = 1
    rows: Permutation = None
    columns: Permutation = None
    at: Place | None = None
    names: tuple[str | None, ...] = ()


def lower(spec: MLBTC, plan: Plan) -> Program:
    """Turn a plan with numbers for sizes into a program.

    Raises:
        PlanError: a size is still symbolic.
    """
    require_numbers(spec)
    terms = [(n, level, part) for n, (level, part) in enumerate(zip(spec.levels, plan.levels, strict=True))]
    return lower_terms((int(spec.shape[0]), int(spec.shape[1])), terms)


def lower_terms(
    shape: tuple[int, int],
    terms: Sequence[tuple[int, Level | Around, LevelPlan]],
    start: int = 0,
    prefix: str = "",
    holder: str = "self.",
) -> Program:
    """Turn a sum of planned terms into a program.

    Args:
        shape: what permutations move and places are parts of: rows of the result, columns of the input.
        terms: for each the number that names its factors, what is around it, and its plan with numbers for sizes.
        start: results are called t1, t2, ... from here on.
        prefix: in front of the names of stored orders.
        holder: in front of the names of factors where they are read.
    """
    builder = _Builder(shape, start, prefix, holder)
    places = [_numbers(around, shape) for _, around, _ in terms]
    for (number, around, plan), place, levels in zip(terms, places, _most_levels(places), strict=True):
        builder.add_level(number, around, plan, place, levels)
    return builder.program()


Rectangle = tuple[tuple[int, int], tuple[int, int]]


def _numbers(level: Level | Around, shape: tuple[int, int]) -> Rectangle:
    rows, columns = ((int(start), int(stop)) for start, stop in ranges(level.at, shape))
    return rows, columns


def _most_levels(places: Sequence[Rectangle]) -> list[int]:
    """Return for each place how many of them one of its rows is in, at most."""
    sides = [rows for rows, _ in places]
    # A row with the most of them is the first one of some place.
    held = {start: sum(a <= start < b for a, b in sides) for start, _ in sides}
    return [max(count for start, count in held.items() if a <= start < b) for a, b in sides]


def require_numbers(spec: MLBTC) -> None:
    """Refuse a spec with open symbols.

    Raises:
        PlanError: naming them and how to bind them.
    """
    if spec.symbols:
        where = f"{spec.origin.where()}: " if spec.origin else ""
        first = spec.symbols[0]
        raise PlanError(
            f"{where}{spec.name!r} has the open symbols {', '.join(spec.symbols)}: give them values, for instance with "
            f"--set {first}=1024, symbols: {{{first}: 1024}} in the file, or spec.bind({first}=1024)"
        )


class _Builder:
    """Collects instructions; names are t1, t2, ... over the whole program."""

    def __init__(self, shape: tuple[int, int], start: int, prefix: str, holder: str) -> None:
        self.shape, self.prefix, self.holder = shape, prefix, holder
        self.levels: list[tuple[Instruction, ...]] = []
        self.current: list[Instruction] = []
        self.parameters: list[Parameter] = []
        self.orders: list[Order] = []
        self.sizes: dict[str, int] = {}
        self.count = start
        # The sums of the levels that fill the same rows, by these rows.
        self.totals: dict[tuple[int, int], str] = {}

    def program(self) -> Program:
        levels, self.current = tuple(self.levels), []
        result = self.assemble()
        assembly = tuple(self.current)
        return Program(self.shape, tuple(self.parameters), tuple(self.orders), levels, result, assembly)

    def assemble(self) -> str:
        """Return the result: what fills different rows is joined, what overlaps is added."""
        if len(self.totals) == 1 and (only := next(iter(self.totals))) == (0, self.shape[0]):
            return self.totals[only]
        layers: list[list[tuple[int, int]]] = []
        for rows in sorted(self.totals):
            free = next((layer for layer in layers if layer[-1][1] <= rows[0]), None)
            if free is None:
                layers.append(free := [])
            free.append(rows)
        total = self.join(layers[0])
        for layer in layers[1:]:
            result, right = self.whole(), self.join(layer)
            self.current.append(Add(result, total, right))
            total = result.name
        return total

    def join(self, layer: Sequence[tuple[int, int]]) -> str:
        """Return the value of rows that do not overlap, in order, with zeros between."""
        sources: list[str | int] = []
        done = 0
        for start, stop in layer:
            sources += [start - done] if start > done else []
            sources.append(self.totals[start, stop])
            done = stop
        sources += [self.shape[0] - done] if done < self.shape[0] else []
        if len(sources) == 1:
            return str(sources[0])
        result = self.whole()
        self.current.append(Join(result, tuple(sources)))
        return result.name

    def whole(self) -> Value:
        """Return a new value with all rows of the matrix."""
        self.count += 1
        return Value(f"t{self.count}", (TOKENS, "rows"), ((TOKENS,), ("rows",)), (TOKENS_DIM, self.shape[0]))

    # Values -----------------------------------------------------------------------------------------------------

    def value(self, groups: Sequence[Sequence[str]], name: str | None = None) -> Value:
        self.count += name is None
        kept = tuple(tuple(group) for group in groups)
        indices = tuple(i for group in kept for i in group)
        return Value(name or f"t{self.count}", indices, kept, tuple(self.dim(group) for group in kept))

    def dim(self, group: Sequence[str]) -> Dim:
        if TOKENS not in group:
            return math.prod(self.sizes[i] for i in group)
        rest = math.prod(self.sizes[i] for i in group if i != TOKENS)
        return TOKENS_DIM if rest == 1 else f"{rest} * {TOKENS_DIM}"

    def solid(self, names: Sequence[str]) -> tuple[str, ...]:
        """Leave out indices of size 1: they carry nothing."""
        return tuple(i for i in names if i == TOKENS or self.sizes[i] > 1)

    # Levels -----------------------------------------------------------------------------------------------------

    def add_level(self, number: int, level: Level | Around, plan: LevelPlan, place: Rectangle, levels: int) -> None:
        rows, columns = place
        self.current = []
        self.sizes = {name: int(size) for name, size in plan.sizes}
        live = self.factors(number, level, plan, levels)
        live["x"] = self.activation(number, level, plan, columns)
        for position, step in enumerate(plan.steps):
            last = position == len(plan.steps) - 1
            live[step.result.name] = self.step(step, live, last)
        # With heads a row is a token of a head: what follows moves the entries of a row.
        row = tuple(i for i in plan.output if i in (TOKENS, HEADS))
        column = self.solid([i for i in plan.output if i not in row])
        turned = self.turned(column, level.rows)
        result = self.arrange(live[plan.steps[-1].result.name], (self.solid(row), turned or column))
        if level.rows is not None and turned is None:
            order = Order(f"{self.prefix}level{number}_rows", level.rows, rows[1] - rows[0], True)
            result = self.permute(result, order)
        if level.scale != 1:
            scaled = self.value(result.groups)
            self.current.append(Scale(scaled, result.name, level.scale))
            result = scaled
        if rows in self.totals:
            total = self.value(result.groups)
            self.current.append(Add(total, self.totals[rows], result.name))
            result = total
        self.totals[rows] = result.name
        self.levels.append(tuple(self.current))

    def factors(self, number: int, level: Level | Around, plan: LevelPlan, levels: int) -> dict[str, Value]:
        live = {}
        fan_in, last = _fan_in(plan, self.sizes)
        fan_out = _fan_out(plan, self.sizes)
        for factor in plan.factors:
            place = int(factor.name[1:])
            name = (level.names[place] if level.names else None) or f"level{number}_factor{place}"
            shape = tuple(self.sizes[i] for i in factor.indices)
            fans = (fan_in[factor.name], fan_out[factor.name])
            self.parameter(Parameter(name, shape, factor.indices, *fans, factor.name == last, levels))
            # Stored with every index a dimension of its own; those of size 1 go when it is first arranged.
            each = tuple((index,) for index in factor.indices)
            live[factor.name] = Value(f"{self.holder}{name}", factor.indices, each, shape)
        return live

    def parameter(self, found: Parameter) -> None:
        """Declare a factor, or count one more use of one that was declared."""
        for place, known in enumerate(self.parameters):
            if known.name == found.name:
                terms = found.fan_in * (found.levels if found.last_of_level else 1)
                fan_in, fan_out = known.fan_in * terms, known.fan_out * found.fan_out
                self.parameters[place] = replace(known, fan_in=fan_in, fan_out=fan_out, uses=known.uses + 1)
                return
        self.parameters.append(found)

    def activation(self, number: int, level: Level | Around, plan: LevelPlan, columns: tuple[int, int]) -> Value:
        names = self.solid(plan.activation.indices[1:])
        turned = self.turned(names, level.columns)
        x = self.value(((TOKENS,), turned or names), "x")
        if columns != (0, self.shape[1]):
            part = self.value(x.groups)
            self.current.append(Slice(part, x.name, *columns))
            x = part
        if level.columns is not None and turned is None:
            order = Order(f"{self.prefix}level{number}_columns", level.columns, columns[1] - columns[0], False)
            x = self.permute(x, order)
        return x

    def turned(self, names: tuple[str, ...], permutation: Permutation) -> tuple[str, ...] | None:
        """Return the indices of an axis in the order of memory, where a stride only turns the first ones behind others.

        `stride(b)` turns an axis of a level, (b, n / b), into (n / b, b) of the matrix. Where the first indices have b
        entries, what is multiplied reads or writes them turned, and the permutation costs nothing. None where it needs
        an instruction.
        """
        stride = stride_of(permutation)
        if stride is None:
            return None
        cuts = (cut for cut in range(len(names) + 1) if math.prod(self.sizes[i] for i in names[:cut]) == stride)
        cut = next(cuts, None)
        return None if cut is None else (*names[cut:], *names[:cut])

    def permute(self, source: Value, order: Order) -> Value:
        """Permute an axis: turned by a stride that cuts an index, else gathered."""
        stride = stride_of(order.permutation)
        if stride is None:
            return self.take(source, order)
        # The columns of a level are read from (n / b, b), its rows are written there.
        split = (stride, order.size // stride) if order.inverse else (order.size // stride, stride)
        result = self.value(source.groups)
        shape = (source.shape[0], *split)
        self.current.append(Arrange(result, source.name, shape, (0, 2, 1), result.shape))
        return result

    def take(self, source: Value, order: Order) -> Value:
        # y[rows[i]] = z[i] is a gather with the inverse order, x_level[j] = x[columns[j]] one with the order itself.
        self.orders.append(order)
        result = self.value(source.groups)
        self.current.append(Take(result, source.name, f"self.{order.name}"))
        return result

    # Steps ------------------------------------------------------------------------------------------------------

    def step(self, step: Step, live: dict[str, Value], last: bool) -> Value:
        x = live[step.left.name]
        if step.right is None:
            return self.reduce(x, [i for i in x.indices if i not in step.result.indices])
        w = live[step.right.name]
        kept = set(step.result.indices)
        x = self.reduce(x, [i for i in x.indices if i not in kept and i not in w.indices])
        w = self.reduce(w, [i for i in w.indices if i not in kept and i not in x.indices])
        x_names, w_names = self.solid(x.indices), self.solid(w.indices)
        batch = tuple(i for i in x_names if i in w_names and i in kept)
        summed = tuple(i for i in x_names if i in w_names and i not in kept)
        m = tuple(i for i in w_names if i not in x_names)
        n = tuple(i for i in x_names if i not in w_names and i != TOKENS) + ((TOKENS,) if TOKENS in x_names else ())
        if not summed and not (m and n):
            return self.times(x, w) if not m else self.times(w, x)
        # An outer product is a product of matrices over a single term, so that a counter of these sees every MAC.
        return self.matmul(x, w, batch, summed, m, n, last)

    def times(self, x: Value, w: Value) -> Value:
        """Multiply by what has no index that `x` lacks: `x` stays as it is in memory, `w` is brought into its order."""
        groups = _shared_runs(x, w, self.solid(x.indices))
        expanded: Groups = tuple(group if set(group) <= set(w.indices) else () for group in groups)
        first = next((place for place, group in enumerate(expanded) if group), len(expanded) - 1)
        left, right = self.arrange(x, groups), self.arrange(w, expanded[first:])
        result = self.value(groups)
        self.current.append(Times(result, left.name, right.name))
        return result

    def matmul(
        self, x: Value, w: Value, batch: tuple[str, ...], summed: tuple[str, ...], m: tuple[str, ...],
        n: tuple[str, ...], tokens_first: bool,
    ) -> Value:  # fmt: skip
        lead: Groups = (batch,) if batch else ()
        # Without a batch and with the tokens alone in front nothing has to move. With a batch a factor that would be
        # read across its rows is better read along them, up to six times for one token; for thin results it is not.
        along_rows = self.solid(w.indices) == (*batch, *summed, *m) and math.prod(self.sizes[i] for i in m) >= _THIN
        if tokens_first or (n == (TOKENS,) and (not batch or along_rows)):
            left, right = self.arrange(x, (*lead, n, summed)), self.arrange(w, (*lead, summed, m))
            result = self.value((*lead, n, m))
        else:
            left, right = self.arrange(w, (*lead, m, summed)), self.arrange(x, (*lead, summed, n))
            result = self.value((*lead, m, n))
        self.current.append(Matmul(result, left.name, right.name, bool(batch)))
        return result

    def reduce(self, source: Value, names: list[str]) -> Value:
        names = [i for i in names if self.sizes[i] > 1]  # the rest goes when the value is next arranged
        if not names:
            return source
        split = self.arrange(source, tuple((i,) for i in source.indices))
        dims = tuple(split.indices.index(i) for i in names)
        result = self.value(tuple((i,) for i in split.indices if i not in names))
        self.current.append(Sum(result, split.name, dims))
        return result

    def arrange(self, source: Value, groups: Sequence[Sequence[str]]) -> Value:
        """Bring a value into `groups` with as few dimensions in between as possible."""
        wanted = tuple(tuple(group) for group in groups)
        order = [i for group in wanted for i in group]
        result = self.value(wanted)
        have = [i for i in source.indices if i in order]  # indices of size 1 may go
        runs = _runs(have, order, wanted)
        in_source = sorted(runs, key=lambda run: have.index(run[0]))
        permutation = tuple(in_source.index(run) for run in runs)
        moved = permutation != tuple(range(len(runs)))
        split = tuple(self.dim(run) for run in in_source)
        after = tuple(split[p] for p in permutation) if moved else source.shape
        if not moved and result.shape == source.shape:
            self.count -= 1
            return Value(source.name, result.indices, result.groups, result.shape)
        step = Arrange(
            result,
            source.name,
            split if moved and split != source.shape else None,
            permutation if moved else None,
            result.shape if after != result.shape else None,
        )
        self.current.append(step)
        return result


def _runs(have: list[str], order: list[str], groups: Groups) -> list[tuple[str, ...]]:
    """Cut `order` into runs that are neighbours in `have` too and lie inside one group."""
    ends = set()
    position = 0
    for group in groups:
        position += len(group)
        ends.add(position)
    runs: list[list[str]] = []
    for place, name in enumerate(order):
        follows = runs and place not in ends and have.index(name) == have.index(runs[-1][-1]) + 1
        if follows:
            runs[-1].append(name)
        else:
            runs.append([name])
    return [tuple(run) for run in runs]


def _shared_runs(x: Value, w: Value, solid: tuple[str, ...]) -> Groups:
    """Cut the dimensions of `x` into the fewest runs that `w` has all or none of; at least one, be it empty."""
    runs: list[tuple[str, ...]] = []
    for group in x.groups:
        kept = [index for index in group if index in solid]
        runs += [tuple(run) for _, run in groupby(kept, lambda index: index in w.indices)]
    return tuple(runs) or ((),)


def _fan_in(plan: LevelPlan, sizes: dict[str, int]) -> tuple[dict[str, int], str]:
    """Return for each factor the terms of the sums that it accounts for, and one factor to account for the level.

    Every summed index belongs to one factor that has it, so that the product over all factors is the number of terms of
    an entry of the output.
    """
    inside: dict[str, tuple[Operand, ...]] = {factor.name: (factor,) for factor in plan.factors}
    fan_in = dict.fromkeys(inside, 1)
    last = plan.factors[0].name
    for step in plan.steps:
        # The operand that joins comes first: of two factors that share an index, the one that is multiplied later.
        operands = [o for o in (step.right, step.left) if o is not None]
        met = [factor for o in operands for factor in inside.get(o.name, ())]
        for index in {i for o in operands for i in o.indices} - set(step.result.indices):
            last = next(factor.name for factor in met if index in factor.indices)
            fan_in[last] *= sizes[index]
        inside[step.result.name] = tuple(met)
    return fan_in, last


def _fan_out(plan: LevelPlan, sizes: dict[str, int]) -> dict[str, int]:
    """Return for each factor the entries that it makes of a sum: its indices that what it is multiplied with lacks."""
    inside: dict[str, tuple[Operand, ...]] = {factor.name: (factor,) for factor in plan.factors}
    fan_out = dict.fromkeys(inside, 1)
    for step in plan.steps:
        joins = inside[step.right.name] if step.right else ()
        for index in {i for factor in joins for i in factor.indices} & set(step.result.indices):
            if index not in step.left.indices:
                fan_out[next(factor.name for factor in joins if index in factor.indices)] *= sizes[index]
        inside[step.result.name] = (*joins, *inside.get(step.left.name, ()))
    return fan_out


def shape_text(shape: Shape) -> str:
    """Return a shape as the arguments of a call."""
    return ", ".join(map(str, shape))
