"""Ranks of specs with tied factors: what is called exact is the rank of a random instance with the same ties."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, Level, families
from tests.analysis.test_rank import certify, rank_of
from tests.oracles.matrix import PRIME, add, level_matrix, random_tensors, rank
from tests.oracles.networks import Network, network


def gram(size: int, inner: int, scale: float = 1) -> MLBTC:
    return MLBTC((size, size), [Level.einsum("i r, j r -> i j", {"r": inner}, scale, factors=("W", "W"))])


def test_a_gram_matrix_has_the_rank_of_its_factor() -> None:
    for size, inner in ((6, 2), (4, 7), (1, 1)):
        found = rank_of(gram(size, inner))
        assert (found.size, found.certainty) == (min(size, inner), "exact")
        assert "modulo a prime" in found.reason


def test_what_cancels_is_never_exact() -> None:
    found = rank_of(gram(6, 2) - gram(6, 2))
    assert found.certainty == "upper bound"
    assert "rank 0" in found.reason
    # Too large to evaluate: no rule may speak for it, though the levels alone would have full rank.
    huge = 2**12
    dense = MLBTC((huge, huge), [Level.einsum("i j -> i j", factors=("W",))])
    for spec in (dense - dense, gram(huge, 3), 3 * dense - 2 * dense):
        assert rank_of(spec).certainty == "upper bound"


def test_scales_of_tied_levels_matter() -> None:
    dense = MLBTC((4, 4), [Level.einsum("i j -> i j", factors=("W",))])
    assert rank_of(dense - 0.5 * dense).certainty == "exact"
    assert "rank 0" in rank_of(0.1 * dense - 0.1 * dense).reason
    assert "rank 0" in rank_of(dense - 0.25 * dense - 0.75 * dense).reason
    # Anything minus its transpose is skew: of odd size it is singular.
    skew = dense - dense.T
    assert (rank_of(skew).size, rank_of(skew).certainty) == (4, "exact")
    odd = MLBTC((5, 5), [Level.einsum("i j -> i j", factors=("W",))])
    assert "rank 4" in rank_of(odd - odd.T).reason


def test_a_name_that_stands_once_ties_nothing() -> None:
    named = MLBTC((9, 9), [Level.einsum("i r, j r -> i j", {"r": 2}, factors=("U", "V"))])
    assert rank_of(named) == rank_of(families.low_rank((9, 9), 2))


def test_a_level_without_ties_may_speak_for_the_sum() -> None:
    """The others are zero where their own tensors are."""
    for size in (6, 2**12):
        found = rank_of(gram(size, 2) + families.diagonal(size))
        assert (found.size, found.certainty) == (size, "exact")
    dense = MLBTC((5, 5), [Level.einsum("i j -> i j", factors=("W",))])
    assert rank_of(dense - dense + families.low_rank((5, 5), 2)).certainty == "upper bound"


def test_ties_between_parts_leave_the_ranks_of_the_parts() -> None:
    low = MLBTC((9, 7), [Level.einsum("i r, j r -> i j", {"r": 2}, factors=("U", "V"))])
    found = rank_of(mlbtc.block_diag(low, low))
    assert (found.size, found.certainty) == (4, "exact")
    # Side by side they have the same columns: [A A] has the rank of A.
    assert (rank_of(mlbtc.hstack(low, low)).size, rank_of(mlbtc.hstack(low, low)).certainty) == (4, "upper bound")
    assert "rank 2" in rank_of(mlbtc.hstack(low, low)).reason


FORMS = {
    "product": network("i r, r j -> (i) (j)", i=4, r=4, j=4),
    "gram": network("i r, j r -> (i) (j)", i=4, r=4, j=4),
    "dense": network("i j -> (i) (j)", i=4, j=4),
    "transposed": network("j i -> (i) (j)", i=4, j=4),
    "hadamard": network("i j, j i -> (i) (j)", i=4, j=4),
    "three": network("i r, s r, s j -> (i) (j)", i=4, r=4, s=4, j=4),
}


@settings(derandomize=True, max_examples=120, deadline=None)
@given(st.data())
def test_random_ties(data: st.DataObject) -> None:
    """All factors are 4 x 4, so that any of them may be one tensor."""
    generator = random.Random(0)
    tensors: dict[str, object] = {}
    levels, matrices = [], []
    for _ in range(data.draw(st.integers(1, 3), label="levels")):
        form: Network = FORMS[data.draw(st.sampled_from(sorted(FORMS)), label="form")]
        names = data.draw(st.tuples(*(st.sampled_from(["U", "V", None]) for _ in form.factors)), label="names")
        scale = data.draw(st.sampled_from([1, -1, 2]), label="scale")
        drawn = [
            found if name is None else tensors.setdefault(name, found)
            for name, found in zip(names, random_tensors(form, generator), strict=True)
        ]
        levels.append(Level.einsum(form.expression, form.sizes, scale, factors=names))
        matrices.append([[scale * entry % PRIME for entry in line] for line in level_matrix(form, drawn)])
    certify(rank_of(MLBTC((4, 4), levels)), rank(add(matrices)))
