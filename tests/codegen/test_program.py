"""Programs as values: hashable, printable, deterministic."""

import dataclasses
import pickle

import pytest

from mlbtc import MLBTC, families
from mlbtc.codegen import Program, lower
from mlbtc.codegen.program import Value
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan

BTT = families.btt((6, 8), 2, (2, 3, 4, 2))


def program_of(spec: MLBTC) -> Program:
    return lower(spec, build_plan(check(build_graph(spec))))


@pytest.mark.parametrize(
    "spec", [BTT, families.mlr((8, 8), [2, 1]), families.permutation([1, 2, 0])], ids=lambda s: s.name
)
def test_equal_specs_give_equal_programs(spec: MLBTC) -> None:
    first, second = program_of(spec), program_of(spec)
    assert first == second
    assert hash(first) == hash(second)
    assert repr(first) == repr(second)
    assert pickle.loads(pickle.dumps(first)) == first


def test_programs_differ_where_specs_do() -> None:
    assert program_of(BTT) != program_of(families.btt((6, 8), 3, (2, 3, 4, 2)))
    assert program_of(families.permutation([1, 2, 0])) != program_of(families.permutation([2, 0, 1]))


def test_programs_are_frozen() -> None:
    program = program_of(BTT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        program.result = "t1"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        program.levels[0][0].result.name = "t9"  # type: ignore[misc]


def test_a_program_prints_its_values_level_by_level() -> None:
    assert str(program_of(families.mlr((4, 8), [3, 2]))).splitlines() == [
        "program for (4 x 8)",
        "  level 0",
        "    t1[j r] <- arrange",
        "    t2[T r] <- matmul",
        "    t3[r i] <- arrange",
        "    t4[T i] <- matmul",
        "  level 1",
        "    t5[k r j] <- arrange",
        "    t6[k j T] <- arrange",
        "    t7[k r T] <- matmul",
        "    t8[k T r] <- arrange",
        "    t9[k r i] <- arrange",
        "    t10[k T i] <- matmul",
        "    t11[T (k i)] <- arrange",
        "    t12[T (k i)] <- add",
    ]


@pytest.mark.parametrize(
    ("groups", "comment"),
    [
        ((), ""),
        (((),), "1"),
        ((("T",), ()), "T 1"),
        ((("c",), ("b", "s"), ("T",)), "c (b s) T"),
        ((("T'",), ("tokens", "T")), "T' (tokens T)"),
    ],
    ids=str,
)
def test_comments_of_values(groups: tuple[tuple[str, ...], ...], comment: str) -> None:
    names = tuple(name for group in groups for name in group)
    assert Value("t1", names, groups, (1,) * len(groups)).comment == comment
