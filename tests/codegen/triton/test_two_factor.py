"""What levels are to a kernel: roles, strides, and what has no kernel."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from mlbtc import MLBTC, Level, families
from mlbtc.codegen.triton.two_factor import Piece, TwoFactor, size_of, strides_text, two_factors
from mlbtc.errors import BackendError
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan
from tests.codegen.triton.two_factor_specs import dense, matrices


def of(spec: MLBTC) -> tuple[TwoFactor, ...]:
    return two_factors(spec, build_plan(check(build_graph(spec))))


def test_roles_of_btt() -> None:
    (level,) = of(families.btt((35, 66), rank=3, factors=(5, 7, 6, 11)))
    assert level.sizes == {"k": 1, "c": 6, "d": 11, "b": 7, "a": 5, "s": 3}
    assert (level.right, level.left) == (1, 0)
    assert level.macs == 3 * 7 * 6 * (5 + 11)
    assert level.middle == 7 * 6 * 3
    assert not level.flat


def test_roles_of_blocks() -> None:
    (level,) = of(families.block_low_rank((24, 36), 4, 3))
    assert level.sizes == {"k": 4, "c": 1, "d": 9, "b": 1, "a": 6, "s": 3}
    assert level.flat
    assert level.k == (Piece(4, 9, 6, 27, 18),)


def test_kronecker_products_repeat_a_factor() -> None:
    (level,) = of(families.kronecker((3, 5), (4, 2)))
    assert level.sizes["s"] == 1
    # Each factor is constant along what only the other one knows.
    assert {piece.right for piece in level.c} == {0} == {piece.left for piece in level.b}


def test_transposing_twice_changes_nothing_and_once_exchanges_the_sides() -> None:
    for level in of(families.btt((35, 66), rank=3, factors=(5, 7, 6, 11)) + families.low_rank((35, 66), 2)):
        turned = level.transposed()
        assert turned.transposed() == level
        assert turned.macs == level.macs
        assert (turned.in_features, turned.right) == (level.out_features, level.left)
        assert of(families.low_rank((66, 35), 2))[0].sizes["d"] == 35


def test_neighbours_become_one_index() -> None:
    spec = MLBTC((6, 20), [Level.einsum("i r, j k r -> i (j k)", {"i": 6, "j": 4, "k": 5, "r": 3})])
    assert of(spec)[0].d == (Piece(20, 1, 0, 3, 0),)
    apart = MLBTC((6, 20), [Level.einsum("i r, k j r -> i (j k)", {"i": 6, "j": 4, "k": 5, "r": 3})])
    assert of(apart)[0].d == (Piece(4, 5, 0, 3, 0), Piece(5, 1, 0, 12, 0))


def test_text_of_strides() -> None:
    pieces = (Piece(4, 5, 0, 3, 0), Piece(5, 1, 0, 12, 0))
    assert strides_text(pieces, "x", "d") == "(d // 5) * 5 + d % 5"
    assert strides_text(pieces, "right", "d") == "(d // 5) * 3 + (d % 5) * 12"
    assert strides_text(pieces, "left", "d") == ""
    assert strides_text((), "x", "d") == ""


@settings(max_examples=60, deadline=None, derandomize=True)
@given(matrices())
def test_offsets_are_those_of_the_definition(drawn: Any) -> None:
    """Sum over all positions of all roles with the offsets as text: it is the matrix, by loops."""
    spec, levels = drawn
    random = np.random.default_rng(0)
    tensors = [random.integers(1, 9, [level.sizes[i] for i in labels]) for level in levels for labels in level.factors]
    found = np.zeros(spec.shape, dtype=int)
    scaled = 2 * np.array([level.scale for level in levels])
    for level, twice in zip(of(spec), scaled, strict=True):
        right, left = tensors[level.right].ravel(), tensors[level.left].ravel()
        roles = [(letter, getattr(level, letter)) for letter in "kcdbas"]
        code = {
            tensor: compile(
                " + ".join(t for letter, pieces in roles if (t := strides_text(pieces, tensor, letter))) or "0",
                "",
                "eval",
            )
            for tensor in ("x", "y", "right", "left")
        }
        for position in itertools.product(*(range(size_of(pieces)) for _, pieces in roles)):
            names = dict(zip("kcdbas", position, strict=True))
            at = {tensor: eval(text, {}, names) for tensor, text in code.items()}
            found[at["y"], at["x"]] += int(twice) * right[at["right"]] * left[at["left"]]
    want = 2 * dense(levels, [torch.tensor(tensor) for tensor in tensors])
    assert found.tolist() == want.long().tolist()


def refused(spec: MLBTC) -> str:
    with pytest.raises(BackendError) as raised:
        of(spec)
    return str(raised.value)


def test_what_has_no_kernel_says_why_and_what_works() -> None:
    text = refused(families.low_rank((8, 8), 2) + families.butterfly(8))
    assert text.startswith("levels[1] of 'low_rank-plus-butterfly', ")
    assert text.endswith(
        "no Triton kernel, as kernels multiply by two factors, and it has 3; target='torch' takes every spec on every "
        "device"
    )
    assert "it has 1" in refused(families.dense((4, 4)))
    assert "permutes rows or columns" in refused(MLBTC((8, 8), [Level(2, 2, permutation=("bit_reversal", None))]))
    assert "a part of the matrix" in refused(MLBTC((8, 8), [Level(2, 2, at=((0, 4), None))]))
    alone = MLBTC((4, 4), [Level.einsum("i r q, j r -> i j", {"i": 4, "j": 4, "r": 2, "q": 3})])
    assert "index 'q' is summed in one factor alone" in refused(alone)


def test_tied_factors_share_a_position() -> None:
    spec = MLBTC((4, 4), [Level.einsum("i r, j r -> i j", {"i": 4, "j": 4, "r": 2}).named(["u", "u"])])
    (level,) = of(spec)
    assert level.right == level.left == 0
