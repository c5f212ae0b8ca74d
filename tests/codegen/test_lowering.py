"""Lowering: programs carried out in NumPy, instruction by instruction, against the matrices of their specs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.codegen import Program, lower
from mlbtc.codegen.program import Add, Arrange, Expand, Instruction, Join, Matmul, Scale, Slice, Sum, Take, Times
from mlbtc.errors import PlanError
from mlbtc.graph import build_graph, check
from mlbtc.plan import Plan, build_plan
from mlbtc.spec.permutation import stride_order
from tests.codegen.cases import CASES, Array, nested, reversed_bits, strided
from tests.codegen.random_specs import Drawn, drawn_specs


def planned(spec: MLBTC, for_tokens: int | None = None) -> Plan:
    return build_plan(check(build_graph(spec)), for_tokens=for_tokens)


def program_of(spec: MLBTC, for_tokens: int | None = None) -> Program:
    return lower(spec, planned(spec, for_tokens))


def instructions(program: Program) -> list[Instruction]:
    return [instruction for level in (*program.levels, program.assembly) for instruction in level]


class Machine:
    """Runs a program in NumPy; checks each shape that the program states."""

    def __init__(self, program: Program, factors: list[Array], x: Array) -> None:
        self.tokens, self.macs = len(x), 0
        self.values = {"x": x} | {
            f"self.{p.name}": value for p, value in zip(program.parameters, factors, strict=True)
        }  # fmt: skip
        self.orders = {}
        for order in program.orders:
            name, size = order.permutation, order.size
            if isinstance(name, str):
                name = tuple(reversed_bits(size) if name == "bit_reversal" else strided(size, int(name[7:-1])))
            places = np.array(name)
            self.orders[f"self.{order.name}"] = np.argsort(places) if order.inverse else places
        for instruction in instructions(program):
            name = instruction.result.name
            assert name not in self.values, f"{name} is made twice"
            self.values[name] = found = self.run(instruction)
            assert found.shape == self.shape(instruction.result.shape), instruction
        self.result = self.values[program.result]

    def shape(self, dims: tuple[int | str, ...]) -> tuple[int, ...]:
        def number(dim: int | str) -> int:
            if isinstance(dim, int):
                return dim
            *head, last = dim.split(" * ")
            assert last == "tokens"
            return math.prod(map(int, head)) * self.tokens

        return tuple(map(number, dims))

    def run(self, instruction: Instruction) -> Array:
        values = self.values
        match instruction:
            case Take(source=source, order=order):
                return values[source][:, self.orders[order]]
            case Slice(source=source, start=start, stop=stop):
                return values[source][:, start:stop]
            case Expand(source=source, shape=shape):
                return np.broadcast_to(values[source], self.shape(shape))
            case Join(sources=sources, dim=dim):
                zeros = [s if isinstance(s, str) else np.zeros((self.tokens, s)) for s in sources]
                return np.concatenate([values[s] if isinstance(s, str) else s for s in zeros], axis=dim)
            case Arrange(source=source, split=split, permutation=permutation, merge=merge):
                found = values[source] if split is None else values[source].reshape(self.shape(split))
                found = found if permutation is None else found.transpose(permutation)
                return found if merge is None else found.reshape(self.shape(merge))
            case Sum(source=source, dims=dims):
                return values[source].sum(axis=dims)
            case Matmul(left=left, right=right, batched=batched):
                assert values[left].ndim == values[right].ndim == 2 + batched
                found = values[left] @ values[right]
                self.macs += found.size * values[left].shape[-1]
                return found
            case Times(left=left, right=right):
                assert np.broadcast_shapes(values[left].shape, values[right].shape) == values[left].shape
                self.macs += values[left].size
                return values[left] * values[right]
            case Scale(source=source, factor=factor):
                return factor * values[source]
            case Add(left=left, right=right):
                return values[left] + values[right]
        raise AssertionError(instruction)


def factors_for(program: Program) -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(p.shape) for p in program.parameters]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tokens", [1, 5])
def test_a_program_is_the_product_with_its_matrix(name: str, tokens: int) -> None:
    case = CASES[name]
    program = program_of(case.spec)
    factors = factors_for(program)
    x = np.random.default_rng(1).standard_normal((tokens, case.spec.shape[1]))
    machine = Machine(program, factors, x)
    named = {p.name: factor for p, factor in zip(program.parameters, factors, strict=True)}
    dense = case.dense(nested(case.spec, named))
    np.testing.assert_allclose(machine.result, x @ dense.T, rtol=1e-11, atol=1e-12)
    # The steps cost what the plan says.
    assert machine.macs == int(mlbtc.analyze(case.spec, batch=tokens).macs)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(drawn=drawn_specs(), for_tokens=st.sampled_from([1, 4096]))
def test_programs_of_random_specs(drawn: Drawn, for_tokens: int) -> None:
    plan = planned(drawn.spec, for_tokens)
    program = lower(drawn.spec, plan)
    factors = factors_for(program)
    x = np.random.default_rng(1).standard_normal((3, drawn.shape[1]))
    machine = Machine(program, factors, x)
    dense = drawn.dense([torch.from_numpy(f) for f in factors]).numpy()
    np.testing.assert_allclose(machine.result, x @ dense.T, rtol=1e-10, atol=1e-10)
    claimed = plan.macs if isinstance(plan.macs, int) else plan.macs.subs(dict.fromkeys(plan.macs.free_symbols, 3))
    assert machine.macs == claimed


@pytest.mark.parametrize("name", CASES)
def test_programs_hold_nothing_needless(name: str) -> None:
    program = program_of(CASES[name].spec)
    steps = instructions(program)
    made = {step.result.name: step for step in steps}
    used: set[str] = {program.result}
    for step in steps:
        sources = [getattr(step, side) for side in ("source", "left", "right") if hasattr(step, side)]
        sources += [s for s in step.sources if isinstance(s, str)] if isinstance(step, Join) else []
        used |= set(sources)
        if isinstance(step, Arrange):
            assert (step.split, step.permutation, step.merge) != (None, None, None)
            assert step.permutation is None or step.permutation != tuple(range(len(step.permutation)))
            assert step.split is None or step.permutation is not None, "one reshape is enough without a permutation"
            assert not isinstance(made.get(step.source), Arrange), "two arrangements in a row are one"
        assert not isinstance(step, Scale) or step.factor != 1
    assert set(made) <= used, "every value is used"
    assert {f"self.{p.name}" for p in program.parameters} <= used


@pytest.mark.parametrize("name", CASES)
def test_sides_of_products_have_few_dimensions(name: str) -> None:
    """Sums aside, a value has at most four dimensions: tokens, block, rest and the factor's own."""
    for step in instructions(program_of(CASES[name].spec)):
        if isinstance(step, Matmul):
            assert len(step.result.groups) == 2 + step.batched
        elif not isinstance(step, Sum | Arrange):
            assert len(step.result.groups) <= 4


@pytest.mark.parametrize(("rank", "left"), [(15, "level0_factor1"), (16, "x"), (40, "x")])
def test_a_factor_is_read_along_its_rows_but_for_thin_results(rank: int, left: str) -> None:
    program = program_of(families.block_low_rank((120, 120), 2, rank))
    arranged = {i.result.name: i.source for i in instructions(program) if isinstance(i, Arrange)}
    first = next(i for i in instructions(program) if isinstance(i, Matmul))
    assert arranged[first.left].removeprefix("self.") == left


def test_no_sum_is_over_one_entry() -> None:
    needless = []
    for name, case in CASES.items():
        program = program_of(case.spec)
        shapes = {f"self.{p.name}": p.shape for p in program.parameters}
        for step in instructions(program):
            shapes[step.result.name] = step.result.shape
            if isinstance(step, Sum) and all(shapes[step.source][dim] == 1 for dim in step.dims):
                needless.append((name, str(step)))
    assert needless == []


def test_factors_are_stored_as_the_spec_writes_them() -> None:
    program = program_of(MLBTC((6, 4), [Level.einsum("r b a, b d r -> (a b) d", {"a": 3, "r": 5}), Level(2)]))
    assert [(p.name, p.shape, p.indices) for p in program.parameters] == [
        ("level0_factor0", (5, 2, 3), ("r", "b", "a")),
        ("level0_factor1", (2, 4, 5), ("b", "d", "r")),
        ("level1_factor0", (2, 3, 2), ("k", "i", "j")),
    ]


def test_permutations_are_stored_as_gathers() -> None:
    """`y[rows[i]] = z[i]` is a gather with the inverse of `rows`; `x[columns[j]]` is one with `columns` itself."""
    program = program_of(MLBTC((4, 6), [Level(), Level(permutation=("bit_reversal", [2, 1, 0, 5, 4, 3]))]))
    assert [(o.name, o.permutation, o.size, o.inverse) for o in program.orders] == [
        ("level1_columns", (2, 1, 0, 5, 4, 3), 6, False),
        ("level1_rows", "bit_reversal", 4, True),
    ]
    takes = [step for step in instructions(program) if isinstance(step, Take)]
    assert [(t.source, t.order) for t in takes] == [("x", "self.level1_columns"), ("t5", "self.level1_rows")]


def test_a_stride_between_indices_moves_nothing() -> None:
    """What is multiplied reads and writes the turned axis; a Monarch matrix of two block diagonals is an example."""
    turned = program_of(MLBTC((8, 6), [Level(blocks=2, permutation=("stride(2)", "stride(2)"))]))
    plain = program_of(MLBTC((8, 6), [Level(blocks=2)]))
    assert turned.orders == ()
    assert [type(step) for step in instructions(turned)] == [type(step) for step in instructions(plain)]


def test_a_stride_inside_an_index_is_one_transposition() -> None:
    program = program_of(MLBTC((8, 6), [Level(blocks=2, permutation=("stride(4)", "stride(3)"))]))
    assert program.orders == ()
    moved = [s for s in instructions(program) if isinstance(s, Arrange) and s.permutation == (0, 2, 1) and s.merge]
    assert [step.split for step in moved] == [("tokens", 2, 3), ("tokens", 4, 2)]


@given(st.sampled_from([1, 2, 3, 4, 6, 12]), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), st.sampled_from([1, 2, 3, 4]))
def test_strides_are_those_of_the_list(columns: int, rows: int, blocks: int) -> None:
    def product(permutation: tuple[object, object]) -> Array:
        program = program_of(MLBTC((24, 12), [Level(blocks=blocks, rank=2, permutation=permutation)]))
        return Machine(program, factors_for(program), np.arange(36.0).reshape(3, 12)).result

    listed = (stride_order(24, rows), stride_order(12, columns))
    np.testing.assert_array_equal(product((f"stride({rows})", f"stride({columns})")), product(listed))


def test_fan_in_counts_the_terms_of_a_sum() -> None:
    program = program_of(families.btt((6, 8), 2, (2, 3, 4, 2)))
    assert [(p.fan_in, p.last_of_level) for p in program.parameters] == [(4 * 2, True), (2, False)]
    program = program_of(families.kronecker((2, 3), (5, 4)))
    assert sorted((p.fan_in, p.last_of_level) for p in program.parameters) == [(3, False), (4, True)]


def test_scales_and_sums_come_last() -> None:
    program = program_of(MLBTC((3, 4), [Level(scale=2), Level(scale=-1.5), Level()]))
    kinds = [[type(step).__name__ for step in level] for level in program.levels]
    assert kinds == [
        ["Arrange", "Matmul", "Scale"],
        ["Arrange", "Matmul", "Scale", "Add"],
        ["Arrange", "Matmul", "Add"],
    ]
    assert [step.factor for step in instructions(program) if isinstance(step, Scale)] == [2, -1.5]


@pytest.mark.parametrize("symbols", [["D"], ["D", "r"]], ids=len)
def test_open_symbols_say_how_to_bind_them(symbols: list[str]) -> None:
    spec = families.low_rank((4, "D"), "r" if "r" in symbols else 2)
    with pytest.raises(PlanError) as raised:
        program_of(spec)
    message = str(raised.value)
    assert message.startswith(f"'low_rank' has the open symbols {', '.join(symbols)}: ")
    for way in ("--set D=1024", "symbols: {D: 1024}", "spec.bind(D=1024)"):
        assert way in message


def test_open_symbols_of_a_file_name_the_file() -> None:
    spec = mlbtc.loads("shape: [D, 4]\nlevels: [{blocks: 1}]\n")
    with pytest.raises(PlanError, match=r"^.+:1: .*open symbols D"):
        program_of(spec)
