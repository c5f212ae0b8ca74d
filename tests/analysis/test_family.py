"""Families are found by structure: under other names, in other orders, with open sizes, and never wrongly."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families, kron, symbol
from mlbtc.analysis import Family, recognise
from mlbtc.analysis.family import _TEXTS
from mlbtc.spec.families import FAMILIES
from mlbtc.spec.rebuild import rebuild
from tests.codegen.random_specs import Drawn, drawn_specs
from tests.oracles.monomials import count, fingerprint
from tests.spec.rewriting import rewritten

D, m, n = symbol("D"), symbol("m"), symbol("n")

TEXTS = {
    "dense": families.dense((4, 6)),
    "diagonal": families.diagonal(6),
    "low rank 2": families.low_rank((4, 6), 2),
    "low rank r": families.low_rank((m, n), "r"),
    "block diagonal (4 blocks)": families.block_diagonal((8, 12), 4),
    "block diagonal (p blocks)": families.block_diagonal((m, n), "p"),
    "block low rank 2 (3 blocks)": families.block_low_rank((9, 12), 3, 2),
    "MLR 3|2|1": families.mlr((64, 64), [3, 2, 1]),
    "MLR 3|2 (blocks 2|8)": families.mlr((64, 64), [3, 2], [2, 8]),
    "MLR r|2": families.mlr((D, D), ["r", 2]),
    "Kronecker product of 2 x 3 and 4 x 5": families.kronecker((2, 3), (4, 5)),
    "Kronecker product of 3 x 3 and 3 x 1": families.kronecker((3, 3), (3, 1)),
    "Kronecker product of m x n and n x m": families.kronecker((m, n), (n, m)),
    "tensor train of rank 2": families.tensor_train((2, 3), (4, 3), (2,)),
    "tensor train of ranks 2|3": families.tensor_train((2, 3, 4), (4, 3, 2), (2, 3)),
    "BTT of rank 2 (32 x 32 blocks)": families.btt((1024, 1024), 2),
    "BTT of rank 3 (6 x 12 blocks)": families.btt((12, 24), 3, (2, 6, 12, 2)),
    "BTT of rank s (sqrt(D) x sqrt(D) blocks)": families.btt((D, D), "s"),
    "Monarch (4 blocks)": families.btt((16, 16), 1),
    "Monarch (8 blocks)": families.monarch((16, 64), 8),
    "butterfly": families.butterfly(16),
    "butterfly, transposed": families.butterfly(16).T,
    "low rank 2 plus diagonal": families.low_rank_plus_diagonal((6, 6), 2),
    "permutation (bit_reversal)": families.permutation("bit_reversal", 16),
    "permutation (stride(3))": families.permutation("stride(3)", 12),
    "permutation (stride(4))": families.permutation("stride(3)", 12).T,
    "permutation (stride(2))": families.permutation("stride(2)", D),
    "permutation (a list of positions)": families.permutation([2, 0, 1, 4, 3]),
    "low rank 4, once simplified": families.low_rank((16, 16), 3) + families.low_rank((16, 16), 1),
    "dense, once simplified": families.dense((8, 8)) + families.btt((8, 8), 1, (2, 4, 4, 2)),
    "MLR 3|2, once simplified": families.mlr((64, 64), [1, 2, 2], [1, 1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_members_by_any_names(text: str) -> None:
    spec = TEXTS[text]
    for written in (spec, -2 * spec, rewritten(spec, 1), rewritten(spec, 2)):
        found = recognise(written)
        assert str(found) == text
        assert found is not None
        expected = written.simplify() if found.simplified else written
        plain = MLBTC(spec.shape, [rebuild(level, scale=1) for level in expected.levels])
        assert found.build().canonical().levels == plain.canonical().levels


def test_every_family_is_among_them() -> None:
    assert {found.name for spec in TEXTS.values() if (found := recognise(spec))} == set(FAMILIES) == set(_TEXTS)


def test_strides_and_families_of_an_algebra() -> None:
    assert str(recognise(kron(families.dense((2, 2)), families.dense((3, 3))))).startswith("Kronecker")
    assert str(recognise(families.low_rank((8, 4), 2) @ families.dense((4, 8)))) == "low rank 2, once simplified"
    product = MLBTC((16, 16), [Level.einsum("b a c, c b d -> (a b) (c d)", {"a": 4, "b": 4, "c": 4},
                                            permutation=("stride(4)", None))])  # fmt: skip
    assert str(recognise(product)) == "Monarch (4 blocks)"


NO_FAMILY = {
    "an unusual order of an axis": MLBTC(
        (16, 16), [Level.einsum("b a c, c b d -> (a b) (c d)", {"a": 4, "b": 4, "c": 4})]
    ),
    "a permuted block diagonal": MLBTC((8, 8), [Level(2, permutation=([1, 0, 2, 3, 4, 6, 5, 7], None))]),
    "a sum": families.monarch((16, 16), 4) + families.low_rank((16, 16), 2),
    "three factors": MLBTC((4, 4), [Level.einsum("a c, b d, a d -> (a b) (c d)", {"a": 2, "b": 2, "c": 2, "d": 2})]),
}


@pytest.mark.parametrize("name", NO_FAMILY)
def test_no_family(name: str) -> None:
    assert recognise(NO_FAMILY[name]) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(drawn_specs())
def test_what_is_found_is_the_same_structure(drawn: Drawn) -> None:
    spec = drawn.spec
    found = recognise(spec)
    assume(found is not None and count(spec) <= 600)
    assert found is not None
    written = spec.simplify() if found.simplified else spec
    plain = MLBTC(written.shape, [rebuild(level, scale=1) for level in written.levels])
    assert fingerprint(found.build()) == fingerprint(plain)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.permutations(range(6)))
def test_any_weighted_permutation(rows: list[int]) -> None:
    found = recognise(families.permutation(rows))
    assert found is not None
    assert found.name == ("diagonal" if list(rows) == sorted(rows) else "permutation")
    assert fingerprint(found.build()) == fingerprint(families.permutation(rows))


def test_reports_name_the_family() -> None:
    report = mlbtc.analyze(families.btt((1024, 1024), 2))
    assert report.family == Family("btt", (("shape", (1024, 1024)), ("rank", 2), ("factors", (32, 32, 32, 32))))
    assert report.to_json()["family"] == "BTT of rank 2 (32 x 32 blocks)"
    assert "- family: BTT of rank 2 (32 x 32 blocks)\n" in report.to_markdown()
    nothing = mlbtc.analyze(NO_FAMILY["a sum"])
    assert json.loads(str(nothing))["family"] is None
    assert "- family: none as a whole; level by level Monarch (4 blocks), low rank 2\n" in nothing.to_markdown()
    alone = mlbtc.analyze(NO_FAMILY["three factors"])
    assert "- family: none that is known\n" in alone.to_markdown()


def test_levels_of_a_part_are_named_with_their_place() -> None:
    spec = MLBTC((8, 8), [Level(1, 1, at=((0, 4), None)), Level(2)])
    assert recognise(spec) is None
    assert "low rank 1 at rows 0:4, block diagonal (2 blocks)\n" in mlbtc.analyze(spec).to_markdown()


def test_reports_of_attention_name_the_family_of_the_score() -> None:
    report = mlbtc.analyze(AttentionSpec.bilinear(width=16, heads=2, context=8, score=families.btt((16, 16), 1)))
    assert report.to_json()["family"] == "Monarch (4 blocks)"
    assert "- family of M: Monarch (4 blocks)\n" in report.to_markdown()
    assert mlbtc.analyze(AttentionSpec.standard(width=16, heads=2, context=8)).to_json()["family"] is None
