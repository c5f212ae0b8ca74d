"""The score compiler's plan to source: one method for the features of queries, one for those of keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlbtc.codegen.costs import program_work, seconds
from mlbtc.codegen.emit_torch import (
    LINE,
    TOKENS_USED,
    code_lines,
    comment_lines,
    needed_functions,
    order_expression,
    parameter_lines,
)
from mlbtc.codegen.initial import std_text
from mlbtc.codegen.layouts import GAIN, MANY_TOKENS, MOST_PRODUCTS
from mlbtc.codegen.lowering import Around, lower_terms
from mlbtc.codegen.program import Order, Parameter, Program
from mlbtc.graph import build_graph, check
from mlbtc.graph.build import ContractionGraph
from mlbtc.plan.build import LevelPlan
from mlbtc.plan.score import LayerPlan, Segment, plan_attention, plan_side
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.level import Level


@dataclass(frozen=True, slots=True)
class SideContext:
    """The method that makes the features of one side.

    Attributes:
        name: "query" or "key".
        lines: its statements.
        counts_tokens: whether one of them needs the number of tokens.
        result: the lines that return the result, (tokens, heads, features).
        norms: pairs of a name and a width of the norms it uses.
    """

    name: str
    lines: tuple[str, ...]
    counts_tokens: bool
    result: tuple[str, ...]
    norms: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ScoreContext:
    """What the template of a layer whose scores are specs shows beside the spec.

    Attributes:
        features: what a pair of tokens in the finest block multiplies.
        ranks: those of each level of blocks.
        sides: the methods for queries and for keys.
        parameters: lines of code that make the factors.
        stds: for each factor its name and the standard deviation of its initial values.
        orders: pairs of a buffer name and the expression that makes it.
        functions: source of the constants and functions that the methods need.
    """

    features: int
    ranks: tuple[int, ...]
    sides: tuple[SideContext, ...]
    parameters: tuple[str, ...]
    stds: tuple[tuple[str, str], ...]
    orders: tuple[tuple[str, str], ...]
    functions: tuple[str, ...]


def score_context(spec: AttentionSpec) -> ScoreContext:
    """Return what the template needs for a spec whose scores are specs."""
    plan = plan_attention(spec)
    emitters = _emitters(spec, plan)
    sides = tuple(emitter.emit() for emitter in emitters)
    programs = [program for emitter in emitters for program in emitter.programs]
    named = _in_order(programs)
    orders: tuple[Order, ...] = tuple(order for program in programs for order in program.orders)
    return ScoreContext(
        features=plan.features,
        ranks=plan.ranks,
        sides=sides,
        parameters=tuple(line for parameter in named for line in parameter_lines(parameter)),
        stds=tuple((parameter.name, std_text(parameter)) for parameter in named),
        orders=tuple((order.name, order_expression(order)) for order in orders),
        functions=needed_functions(programs),
    )


def score_factors(spec: AttentionSpec) -> tuple[Parameter, ...]:
    """Return the factors of a spec whose scores are specs, with the fans that initial values are drawn by."""
    emitters = _emitters(spec, plan_attention(spec))
    for emitter in emitters:
        emitter.emit()
    return tuple(_in_order([program for emitter in emitters for program in emitter.programs]))


def _emitters(spec: AttentionSpec, plan: LayerPlan) -> list[_SideEmitter]:
    return [_SideEmitter(spec, plan, side) for side in ("query", "key")]


def _in_order(programs: list[Program]) -> list[Parameter]:
    """Return the factors of programs in the order of the spec, whatever side a factor is on."""
    return sorted(
        (parameter for program in programs for parameter in program.parameters),
        key=lambda parameter: tuple(int(part) for part in parameter.name.removeprefix("level").split("_factor")),
    )


class _SideEmitter:
    """Emits the segments of one side, one after the other; variables are numbered throughout."""

    def __init__(self, spec: AttentionSpec, plan: LayerPlan, side: str) -> None:
        assert spec.matrix is not None
        self.spec, self.plan, self.side = spec, plan, side
        self.levels: tuple[Level, ...] = spec.matrix.levels
        self.contraction: ContractionGraph = check(build_graph(spec.matrix))
        self.programs: list[Program] = []
        self.norms: list[tuple[str, int]] = []
        self.lines: list[str] = []
        self.count = 0

    def emit(self) -> SideContext:
        """Return the method."""
        parts = [self.segment(number, segment) for number, segment in enumerate(self.plan.segments)]
        if self.spec.joint_norm:
            parts = self.normed_together(parts)
        counted = any(TOKENS_USED.search(line) for line in self.lines)
        return SideContext(self.side, tuple(self.lines), counted, _side_by_side("return", parts), tuple(self.norms))

    def segment(self, number: int, segment: Segment) -> str:
        """Emit a segment and return the expression of its features, (tokens, heads, features)."""
        if segment.side not in ("both", self.side):
            return f"x[:, None].expand(-1, {self.spec.heads}, -1)"
        plain = [self.level_plan(level) for level in segment.levels]
        plans = [self.cheapest_plan(level, plan) for level, plan in zip(segment.levels, plain, strict=True)]
        # Initial values are those of the factors one after the other, in whatever order they are multiplied.
        program = replace(self.lowered(segment, plans), parameters=self.lowered(segment, plain).parameters)
        if self.spec.rms_cap:
            capped = zip(segment.levels, plain, strict=True)
            self.lines += [line for level, plan in capped for line in _capped(level, plan)]
        self.programs.append(program)
        for level, plan, instructions in zip(segment.levels, plans, program.levels, strict=True):
            split = self.plan.chosen[level]
            how = "" if plan in plain else f"; {plan.chosen_by}"
            self.lines += comment_lines(f"level {level}: {self.levels[level]}; {split}{how}")
            self.lines += code_lines(instructions)
            made = [i.result.name for i in instructions if i.result.name.startswith("t")]
            self.count = max([self.count, *(int(name[1:]) for name in made)])
        return self.finished(number, segment, program.result)

    def lowered(self, segment: Segment, plans: Sequence[LevelPlan]) -> Program:
        """Return the program of a segment with a plan for each of its levels."""
        around = [self.around(level, segment) for level in segment.levels]
        terms = list(zip(segment.levels, around, plans, strict=True))
        holder = "" if self.spec.rms_cap else "self."
        return lower_terms(self.contraction_shape(), terms, self.count, f"{self.side}_", holder)

    def finished(self, number: int, segment: Segment, variable: str) -> str:
        """Return the expression that norms and scales a segment."""
        text = f"{variable}.reshape(-1, {self.spec.heads}, {segment.features})"
        if self.spec.joint_norm:
            return text
        if self.spec.qk_norm:
            name = f"{self.side}_norm{number}"
            self.norms.append((name, segment.features))
            text = f"self.{name}({text})"
        scale = self.scale(segment)
        return f"{scale}{text}"

    def normed_together(self, parts: Sequence[str]) -> list[str]:
        """Return the expressions of segments, those that factors made behind one norm."""
        segments = self.plan.segments
        made = [number for number, segment in enumerate(segments) if segment.side in ("both", self.side)]
        if not made:
            return list(parts)
        name, width = f"{self.side}_norm", sum(segments[number].features for number in made)
        self.norms.append((name, width))
        self.lines += _side_by_side("features =", [parts[number] for number in made])
        scales = [self.scale(segments[number]) for number in made]
        if len(made) == len(segments) and not any(scales):
            return [f"self.{name}(features)"]
        self.lines.append(f"features = self.{name}(features)")
        normed, start = list(parts), 0
        for number, scale in zip(made, scales, strict=True):
            stop = start + segments[number].features
            normed[number] = f"{scale}features[..., {start}:{stop}]"
            start = stop
        return normed

    def scale(self, segment: Segment) -> str:
        """Return what multiplies a whole segment: behind the norm, which would undo it."""
        if self.side != self.scaled(segment):
            return ""
        alone = self.levels[segment.levels[0]].scale if len(segment.levels) == 1 else 1
        # What attends divides by the root of all features.
        mup = f"{self.plan.features}**0.5 / {segment.features} * " if self.spec.scale == "mup" else ""
        return mup if alone == 1 else f"{alone!r} * {mup}"

    def scaled(self, segment: Segment) -> str:
        """Return the side that the scales of a segment are on."""
        return "key" if segment.side == "both" else segment.side

    def around(self, number: int, segment: Segment) -> Around:
        """Return what surrounds a level: x_i^T P_r (product) P_c^T x_j gathers x_i by rows and x_j by columns.

        Where all factors are on one side, the other token stays as it is, so that what is left of the permutations
        moves the entries of the result.
        """
        level = self.levels[number]
        gathered, placed = (level.columns, level.rows) if self.side == "key" else (level.rows, level.columns)
        scale = level.scale if len(segment.levels) > 1 else 1
        return Around(scale, None if segment.side == "both" else placed, gathered)

    def level_plan(self, level: int, products: int | None = None) -> LevelPlan:
        """Return the plan of a level's factors on this side, one after the other or multiplied to a few products."""
        split, heads = self.plan.chosen[level], self.spec.heads
        plan = plan_side(self.contraction, level, split, self.side, heads, products)
        assert plan is not None
        return plan

    def cheapest_plan(self, level: int, plain: LevelPlan) -> LevelPlan:
        """Return the plan of a level that the cost model takes for fastest: small factors of many heads gain most."""
        fewer = range(1, min(MOST_PRODUCTS, len(plain.factors) - 1) + 1)
        plans = [plain, *(self.level_plan(level, products) for products in fewer)]
        costs = [self.plan_seconds(plan) for plan in plans]
        best = min(range(len(plans)), key=costs.__getitem__)
        return plans[best] if costs[best] <= GAIN * costs[0] else plain

    def plan_seconds(self, plan: LevelPlan) -> float:
        """Return the estimate for one level by itself."""
        program = lower_terms(self.contraction_shape(), [(0, Around(), plan)])
        return seconds(program_work(program, max(MANY_TOKENS, self.plan.tokens)))

    def contraction_shape(self) -> tuple[int, int]:
        """Return the shape of the score: permutations move its axes."""
        return self.spec.width, self.spec.width


def _capped(level: int, plan: LevelPlan) -> list[str]:
    """Return the lines that cap the factors of a level, s = sqrt(min(fan in, fan out)) / fan in of each product."""
    sizes = {name: int(size) for name, size in plan.sizes}
    lines = []
    for step in plan.steps:
        assert step.right is not None, "every step of a side has a factor"
        name, kept = f"level{level}_factor{step.right.name[1:]}", set(step.result.indices)
        inside = math.prod(sizes[index] for index in step.right.indices if index not in kept)
        outside = math.prod(sizes[index] for index in step.right.indices if index in kept - set(step.left.indices))
        lines.append(f"{name} = rms_capped(self.{name}, {min(inside, outside)}**0.5 / {inside})")
    return lines


def _side_by_side(start: str, parts: Sequence[str]) -> tuple[str, ...]:
    """Return the statement that returns or names features side by side, laid out as a formatter would."""
    text = f"{start} {parts[0]}" if len(parts) == 1 else f"{start} torch.cat([{', '.join(parts)}], dim=-1)"
    if len(text) + 8 <= LINE:
        return (text,)
    return (f"{start} torch.cat(", "    [", *(f"        {part}," for part in parts), "    ],", "    dim=-1,", ")")
