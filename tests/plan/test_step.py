"""Steps: a path replayed on index sets, with its multiply-adds."""

import pytest
import sympy as sp

from mlbtc import symbol
from mlbtc.plan.step import Operand, Step, index_key, replay

D, R, T = symbol("D"), symbol("r"), symbol("T")
LEFT, RIGHT = Operand("f0", ("i", "r")), Operand("f1", ("r", "j"))
X = Operand("x", ("T", "j"))
SIZES = {"i": 3, "r": 2, "j": 5, "T": 7}


def test_the_activation_meets_one_factor_after_the_other() -> None:
    first, last = replay([LEFT, RIGHT, X], ("T", "i"), [(1, 2), (0, 1)], SIZES)
    assert first == Step(X, RIGHT, Operand("t1", ("T", "r")), 7 * 5 * 2, 7 * 2)
    assert last == Step(Operand("t1", ("T", "r")), LEFT, Operand("t2", ("T", "i")), 7 * 2 * 3, 7 * 3)


def test_factors_first() -> None:
    first, last = replay([LEFT, RIGHT, X], ("T", "i"), [(0, 1), (0, 1)], SIZES)
    assert first == Step(LEFT, RIGHT, Operand("t1", ("i", "j")), 3 * 2 * 5, 3 * 5)
    assert (last.left, last.right, last.macs) == (X, Operand("t1", ("i", "j")), 7 * 5 * 3)


def test_the_order_of_positions_in_a_pair_does_not_matter() -> None:
    assert replay([LEFT, RIGHT, X], ("T", "i"), [(2, 1), (1, 0)], SIZES) == replay(
        [LEFT, RIGHT, X], ("T", "i"), [(1, 2), (0, 1)], SIZES
    )


def test_symbols_stay_symbols() -> None:
    sizes = {"i": D, "r": R, "j": 2 * D, "T": T}
    steps = replay([LEFT, RIGHT, X], ("T", "i"), [(1, 2), (0, 1)], sizes)
    assert [step.macs for step in steps] == [2 * D * R * T, D * R * T]
    assert [step.elements for step in steps] == [R * T, D * T]


def test_an_index_that_is_still_needed_is_kept() -> None:
    hyper = [Operand("f0", ("r", "j")), Operand("f1", ("r",)), Operand("f2", ("i", "r")), X]
    steps = replay(hyper, ("T", "i"), [(0, 3), (0, 2), (0, 1)], SIZES)
    assert [step.result.indices for step in steps] == [("T", "r"), ("T", "r"), ("T", "i")]
    assert [step.macs for step in steps] == [7 * 5 * 2, 7 * 2, 7 * 2 * 3]


def test_a_block_index_is_never_summed() -> None:
    steps = replay([Operand("f0", ("k", "i", "j")), Operand("x", ("T", "k", "j"))], ("T", "k", "i"), [(0, 1)],
                   {"k": 4, "i": 3, "j": 5, "T": 7})  # fmt: skip
    assert steps[0].result.indices == ("T", "k", "i")
    assert steps[0].macs == 7 * 4 * 3 * 5


def test_the_last_result_has_the_order_of_the_output() -> None:
    operands = [Operand("f0", ("a", "b", "j")), X]
    sizes = {"a": 2, "b": 3, "j": 5, "T": 7}
    assert replay(operands, ("b", "T", "a"), [(0, 1)], sizes)[0].result.indices == ("b", "T", "a")


def test_a_product_without_a_sum_counts_its_entries() -> None:
    (step,) = replay([Operand("f0", ("i",)), Operand("x", ("T", "i"))], ("T", "i"), [(0, 1)], SIZES)
    assert (step.macs, step.elements) == (7 * 3, 7 * 3)


def test_what_one_operand_is_summed_over_alone_multiplies_nothing() -> None:
    wide = Operand("f0", ("i", "j", "u"))
    (step,) = replay([wide, X], ("T", "i"), [(0, 1)], {**SIZES, "u": 100})
    assert step.macs == 7 * 3 * 5
    (alone,) = replay([wide], ("i", "j"), [(0,)], {**SIZES, "u": 100})
    assert (alone.right, alone.macs, alone.elements) == (None, 0, 3 * 5)


def test_results_are_named_with_the_prefix() -> None:
    steps = replay([LEFT, RIGHT, X], ("T", "i"), [(1, 2), (0, 1)], SIZES, prefix="back")
    assert [step.result.name for step in steps] == ["back1", "back2"]


def test_steps_read_as_equations_with_units() -> None:
    first, _ = replay([LEFT, RIGHT, X], ("T", "i"), [(1, 2), (0, 1)], SIZES)
    assert str(first) == "t1[T r] = x[T j], f1[r j]: 70 MACs, 14 elements"
    (alone,) = replay([Operand("f0", ("i", "u"))], ("i",), [(0,)], {"i": 3, "u": 2})
    assert str(alone) == "t1[i] = f0[i u]: 0 MACs, 3 elements"


def test_an_empty_result_has_one_element() -> None:
    (step,) = replay([Operand("f0", ("u",)), Operand("f1", ("u",))], (), [(0, 1)], {"u": 5})
    assert (step.result.indices, step.macs, step.elements) == ((), 5, 1)


@pytest.mark.parametrize("name", ["a", "t", "T2", "tokens"])
def test_index_names_are_kept(name: str) -> None:
    assert index_key(name) == name


def test_an_index_called_t_is_told_from_the_tokens() -> None:
    assert index_key("T") == "T'"


def test_numbers_stay_python_integers() -> None:
    steps = replay([LEFT, RIGHT, X], ("T", "i"), [(1, 2), (0, 1)], SIZES)
    assert all(type(step.macs) is type(step.elements) is int for step in steps)
    mixed = replay([LEFT, RIGHT, X], ("T", "i"), [(1, 2), (0, 1)], {**SIZES, "T": T})
    assert isinstance(mixed[0].macs, sp.Expr)
