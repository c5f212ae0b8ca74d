"""Canonical forms: the same polynomials in the entries, and equal for structures that are only written differently."""

import itertools
import random
from dataclasses import dataclass, fields

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlbtc import MLBTC, Level, families, kron, loads, symbol
from mlbtc.spec import labelling
from mlbtc.spec.canonical import canonical, canonical_level
from mlbtc.spec.rebuild import is_plain, rebuild
from tests.codegen.random_specs import Drawn, drawn_specs
from tests.oracles.monomials import count, fingerprint
from tests.oracles.networks import Network, networks
from tests.spec.rewriting import rewritten

D = symbol("D")


def single(expression: str, shape: tuple[object, object], permutation: object = None, **sizes: object) -> MLBTC:
    return MLBTC(shape, [Level.einsum(expression, sizes, permutation=permutation)])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(drawn_specs())
def test_the_entries_are_the_same_polynomials(drawn: Drawn) -> None:
    spec = drawn.spec
    assume(count(spec) <= 600)
    form = canonical(spec)
    assert fingerprint(form) == fingerprint(spec)
    assert canonical(form) == form
    assert loads(form.to_yaml()) == form


@settings(max_examples=150, deadline=None, derandomize=True)
@given(drawn_specs(), st.integers(0, 2**32))
def test_the_way_of_writing_plays_no_role(drawn: Drawn, seed: int) -> None:
    spec = drawn.spec
    if any(isinstance(p, tuple) for level in spec.levels for p in (level.rows, level.columns)):
        # A list on an axis of several indices is promised nothing.
        spec = MLBTC(spec.shape, [rebuild(level, rows=None, columns=None) for level in spec.levels])
    assert canonical(rewritten(spec, seed)) == canonical(spec)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(networks(sizes=(1, 2, 3), max_factors=5), networks(sizes=(1, 2, 3), max_factors=5))
def test_other_polynomials_have_other_forms(one: Network, other: Network) -> None:
    assume(one.shape == other.shape and max(count(one.spec), count(other.spec)) <= 300)
    assert (canonical(one.spec) == canonical(other.spec)) <= (fingerprint(one.spec) == fingerprint(other.spec))


EQUAL = {
    "Monarch is BTT of rank 1": (families.monarch((16, 16), 4), families.btt((16, 16), 1)),
    "with open sizes": (families.monarch((D, D), 4), families.btt((D, D), 1, (D / 4, 4, 4, D / 4))),
    "low rank is MLR of one level": (families.low_rank((8, 6), 2), families.mlr((8, 6), [2])),
    "block diagonal": (families.block_diagonal((8, 8), 4), single("q p o -> (o q) (o p)", (8, 8), o=4)),
    "a diagonal is n blocks of 1": (families.block_diagonal((8, 8), 8), families.diagonal(8)),
    "Kronecker in either order": (
        kron(families.dense((2, 3)), families.dense((4, 5))),
        single("b d, a c -> (a b) (c d)", (8, 15), a=2, b=4, c=3, d=5),
    ),
    "a sum in either order": (
        families.dense((4, 4)) + families.low_rank((4, 4), 1),
        families.low_rank((4, 4), 1) + families.dense((4, 4)),
    ),
    "BTT by other names": (
        families.btt((24, 24), 2, (3, 8, 6, 4)),
        single("r v x u, x r p v -> (v u) (r p)", (24, 24), v=8, u=3, x=2, r=6, p=4),
    ),
    "BTT is closed under transposition": (
        families.btt((24, 12), 2, (3, 8, 6, 2)).T,
        families.btt((12, 24), 2, (2, 6, 8, 3)),
    ),
    "a stride is an order of indices": (
        families.permutation("stride(2)", 8),
        single("a b -> (b a) (a b)", (8, 8), a=2, b=4),
    ),
    "a list that is a stride": (families.permutation([0, 2, 4, 6, 1, 3, 5, 7]), families.permutation("stride(2)", 8)),
    "a list that is a bit reversal": (
        families.permutation([0, 4, 2, 6, 1, 5, 3, 7]),
        families.permutation("bit_reversal", 8),
    ),
    "a bit reversal of two": (families.permutation("bit_reversal", 2), families.diagonal(2)),
    "rows of a dense matrix": (single("i j -> i j", (4, 4), ([2, 0, 3, 1], "bit_reversal")), families.dense((4, 4))),
    "one permutation of a diagonal": (
        single("i -> i i", (4, 4), ([2, 0, 3, 1], [1, 0, 3, 2])),
        families.permutation([0, 2, 1, 3]),
    ),
    "sizes of 1": (Level(blocks=1, rank=3), Level.einsum("u i r, r j v -> (i v) (j u)", {"u": 1, "v": 1, "r": 3})),
    "equal sizes": (single("i j -> i j", (D * (D + 1), 2)), single("i j -> i j", (D**2 + D, 2))),
    "twice transposed": (families.btt((16, 16), 2).T.T + families.diagonal(16), families.diagonal(16)
                         + families.btt((16, 16), 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_equal_structures(name: str) -> None:
    one, other = (MLBTC((6, 5), [spec]) if isinstance(spec, Level) else spec for spec in EQUAL[name])
    assert one.canonical() == other.canonical()
    assert hash(one.canonical()) == hash(other.canonical())


DIFFERENT = {
    "rank": (families.btt((16, 16), 1), families.btt((16, 16), 2)),
    "order of an axis": (
        single("a c, b d -> (a b) (c d)", (4, 4), a=2, b=2, c=2, d=2),
        single("a c, b d -> (a b) (d c)", (4, 4), a=2, b=2, c=2, d=2),
    ),
    "scale": (families.dense((4, 4)), 2 * families.dense((4, 4))),
    "number of levels": (families.dense((4, 4)), families.dense((4, 4)) + families.dense((4, 4))),
    "permutation": (families.permutation("stride(2)", 8), families.permutation("stride(4)", 8)),
    "a list that is no order of digits": (families.permutation([0, 1, 3, 2]), families.diagonal(4)),
    "symbols": (families.low_rank((D, D), "r"), families.low_rank((D, D), "s")),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_structures(name: str) -> None:
    one, other = DIFFERENT[name]
    assert one.canonical() != other.canonical()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([2, 2, 3]), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_orders_of_digits(sizes: list[int], generator: random.Random) -> None:
    """A list that puts digits into any order, not only one that is its own inverse, becomes an order of indices."""
    order = generator.sample(range(len(sizes)), len(sizes))
    places = []
    for digits in itertools.product(*map(range, sizes)):
        place = 0
        for digit in order:
            place = place * sizes[digit] + digits[digit]
        places.append(place)
    for permutation in ((places, None), (None, places)):
        spec = single("i -> i i", (len(places),) * 2, permutation)
        (level,) = canonical(spec).levels
        assert (level.rows, level.columns) == (None, None)
        assert fingerprint(canonical(spec)) == fingerprint(spec)


PLACED = MLBTC(
    (8, 8),
    [
        Level.einsum("i -> i i", permutation=("stride(2)", None), at=((0, 4), (4, 8))),
        Level(2, 1, at=(None, (2, 6))),
        Level.einsum("u i j -> i (u j)", {"u": 1}, at=((1, 3), (0, 5))),
    ],
)


def test_levels_keep_their_places() -> None:
    form = PLACED.canonical()
    assert fingerprint(form) == fingerprint(PLACED)
    assert {level.at for level in form.levels} == {level.at for level in PLACED.levels}
    assert all(level.rows is None for level in form.levels)
    assert loads(form.to_yaml()) == form
    assert canonical(PLACED.T.T) == form
    assert canonical(PLACED.T).T.canonical() == form


def graph_level(edges: list[tuple[int, int]], seed: int) -> MLBTC:
    """Return a level with a summed index per vertex and a factor per edge, all on one axis index."""
    generator = random.Random(seed)
    names = generator.sample(range(1 + max(map(max, edges))), 1 + max(map(max, edges)))
    factors = [f"i v{names[a]} v{names[b]}" for a, b in generator.sample(edges, len(edges))]
    return single(f"{', '.join(factors)} -> i i", (3, 3), **{f"v{name}": 2 for name in names})


def cycle(length: int, first: int = 0) -> list[tuple[int, int]]:
    return [(first + k, first + (k + 1) % length) for k in range(length)]


PRISM = [*cycle(3), *cycle(3, 3), (0, 3), (1, 4), (2, 5)]
UTILITIES = list(itertools.product((0, 1, 2), (3, 4, 5)))
CUBE = [(a, b) for a in range(8) for b in range(a) if (a ^ b).bit_count() == 1]
PETERSEN = [*cycle(5), *[(k, k + 5) for k in range(5)], *[(5 + k, 5 + (k + 2) % 5) for k in range(5)]]


@pytest.mark.parametrize("edges", [cycle(6), PRISM, UTILITIES, CUBE, PETERSEN, [*cycle(4), *cycle(4, 4), *cycle(5, 8)]])
def test_symmetric_levels_have_one_form(edges: list[tuple[int, int]]) -> None:
    forms = {canonical(graph_level(edges, seed)) for seed in range(6)}
    assert len(forms) == 1


@pytest.mark.parametrize(("one", "other"), [(cycle(6), [*cycle(3), *cycle(3, 3)]), (PRISM, UTILITIES)])
def test_what_colours_do_not_tell_apart(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    """All vertices of these look alike to colour refinement; the search has to see the difference."""
    assert canonical(graph_level(one, 0)) != canonical(graph_level(other, 0))


def test_equal_parts_do_not_multiply() -> None:
    """20 equal chains have 20! orders; this test ends because they are ordered part by part."""

    def chains(seed: int) -> MLBTC:
        order = random.Random(seed).sample(range(20), 20)
        factors = ", ".join(f"i a{k}, a{k} b{k}, b{k} j" for k in order)
        return single(f"{factors} -> i j", (3, 3), **{f"{x}{k}": 2 for k in range(20) for x in "ab"})

    assert canonical(chains(0)) == canonical(chains(1))


def test_beyond_the_limit_of_choices_the_structure_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "MAX_CHOICES", 0)
    spec = graph_level(PRISM, 3)
    assert fingerprint(canonical(spec)) == fingerprint(spec)


def test_many_levels() -> None:
    spec = families.mlr((4096, 4096), [3] * 64, [2 ** (k % 12) for k in range(64)])
    assert canonical(rewritten(spec, 5)) == canonical(spec)


def test_names_say_the_role() -> None:
    (level,) = families.btt((16, 16), 2).canonical().levels
    assert str(level.expression) == "o1 o2 i1 r1, o1 i1 i2 r1 -> (o1 o2) (i1 i2)"
    (level,) = families.block_low_rank((16, 16), 2, 2).canonical().levels
    assert str(level.expression) == "b1 o1 r1, b1 i1 r1 -> (b1 o1) (b1 i1)"


def test_a_symbolic_form_is_equal_after_binding() -> None:
    for spec in (families.btt((D, D), "s"), families.mlr((D, D), ["s", 2]), families.permutation("stride(4)", D)):
        values = {name: 16 if name == "D" else 3 for name in spec.symbols}
        assert canonical(canonical(spec).bind(**values)) == canonical(spec.bind(**values))


def test_name_and_defaults_stay() -> None:
    spec = families.low_rank((D, D), "r").with_defaults({"D": 8, "r": 2}).named("mine")
    assert spec.canonical().name == "mine"
    assert spec.canonical().defaults == spec.defaults


@dataclass(frozen=True, slots=True, init=False)
class Marked(Level):
    """A level that says more than this version knows."""

    mark: str = ""


def marked(level: Level) -> Marked:
    made = object.__new__(Marked)
    for name, value in ((field.name, getattr(level, field.name)) for field in fields(Level)):
        object.__setattr__(made, name, value)
    object.__setattr__(made, "mark", "kept")
    return made


def test_levels_that_say_more_are_left_alone() -> None:
    level = marked(families.low_rank((4, 4), 2).levels[0])
    assert not is_plain(level)
    assert canonical_level(level) is level
    assert rebuild(level, scale=2).mark == "kept"


@pytest.mark.parametrize("columns", [None, "bit_reversal", "stride(8)"])
def test_digits_that_a_factor_cannot_hold_stay_a_permutation(columns: str | None) -> None:
    # 2^24 rows have 24 binary digits, and with the rank a factor would have 25 indices.
    spec = MLBTC((2**24, 2**24), [Level(4, 3, permutation=("bit_reversal", columns))])
    form = canonical(spec)
    assert form.levels[0].rows == "bit_reversal"
    assert canonical(form) == form
    assert spec.simplify().levels[0].rows == "bit_reversal"


def test_names_are_short_where_the_expression_is_long() -> None:
    generator = random.Random(0)
    letters = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    factors = [generator.sample(letters, 24) for _ in range(64)]
    axes = f"({' '.join(letters[:20])}) ({' '.join(letters[20:40])})"

    def spec(factors: list[list[str]]) -> MLBTC:
        return single(f"{', '.join(map(' '.join, factors))} -> {axes}", (2**20, 2**20), **dict.fromkeys(letters, 2))

    form = canonical(spec(factors))
    assert loads(form.to_yaml()) == form == canonical(form)
    assert form == canonical(spec([generator.sample(factor, 24) for factor in generator.sample(factors, 64)]))
