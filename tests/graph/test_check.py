"""What `check` refuses: each graph is broken by hand in one place, and the message names that place."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from mlbtc import MLBTC, Level, families, loads, symbol
from mlbtc.errors import GraphError, MlbtcError
from mlbtc.graph import ContractionGraph, build_graph, check
from tests.oracles.networks import Network, networks

D = symbol("D")


def two_levels() -> ContractionGraph:
    """Return a sound graph; the tests break its second level."""
    return build_graph(MLBTC((6, 10), [Level.einsum("i j -> i j"), Level(2, 4)]))


def test_a_sound_graph_is_returned() -> None:
    contraction = two_levels()
    assert check(contraction) is contraction


@settings(derandomize=True, max_examples=100, deadline=None)
@given(networks())
def test_graphs_of_specs_are_sound(drawn: Network) -> None:
    check(build_graph(drawn.spec))


SOUND = {
    "every-size-one": families.low_rank((1, 1), 1),
    "diagonal": families.diagonal(5),
    "butterfly": families.butterfly(64),
    "symbols": families.btt((D, D), "s"),
    "symbols-that-multiply-to-the-shape": families.kronecker(("a", "b"), ("c", "d")),
    "shape-in-another-form": MLBTC(("D*E + D", 4), [Level.einsum("i u, j u -> (i j) u", {"i": "D", "j": "E + 1"})]),
    "index-summed-alone": MLBTC((4, 4), [Level.einsum("i j u -> i j", {"u": 3})]),
}


@pytest.mark.parametrize("spec", SOUND.values(), ids=SOUND.keys())
def test_sound(spec: MLBTC) -> None:
    check(build_graph(spec))


def set_data(node: tuple[Any, ...], **data: object) -> Callable[[Any], None]:
    return lambda graph: graph.nodes[node].update(data)


def remove_factor_edges(graph: Any) -> None:
    graph.remove_edge(("index", 1, "i"), ("factor", 1, 0))


BROKEN: dict[str, tuple[Callable[[Any], None], tuple[str, ...]]] = {
    "two-tensors-joined": (
        lambda graph: graph.add_edge(("factor", 1, 0), ("factor", 1, 1)),
        ("levels[1]", "factor 0", "factor 1"),
    ),
    "two-indices-joined": (
        lambda graph: graph.add_edge(("index", 1, "i"), ("index", 1, "r")),
        ("levels[1]", "index 'i'", "index 'r'"),
    ),
    "too-few-sizes": (set_data(("factor", 1, 1), shape=(2, 5)), ("levels[1]", "factor 1", "3 indices", "2 sizes")),
    "unknown-index": (
        set_data(("factor", 1, 0), indices=("k", "i", "z")),
        ("levels[1]", "factor 0", "unknown index 'z'"),
    ),
    "size-that-differs": (
        set_data(("factor", 1, 1), shape=(2, 5, 3)),
        ("levels[1]", "factor 1", "'r'", "3", "4"),
    ),
    "output-size": (set_data(("index", 1, "i"), size=7), ("levels[1]", "'i'", "7", "3")),
    "input-axis": (
        set_data(("axis", 1, "input"), indices=("j",)),
        ("levels[1]", "input axis (j)", "5", "10"),
    ),
    "index-of-an-axis-on-no-factor": (remove_factor_edges, ("levels[1]", "'i'", "output axis", "no factor")),
    "index-without-tensors": (
        lambda graph: graph.add_node(("index", 1, "q"), size=2),
        ("levels[1]", "'q'", "no factor"),
    ),
}


@pytest.mark.parametrize(("break_", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_graphs(break_: Callable[[Any], None], words: tuple[str, ...]) -> None:
    contraction = two_levels()
    break_(contraction.graph)
    with pytest.raises(GraphError) as caught:
        check(contraction)
    for word in words:
        assert word in str(caught.value)


def test_an_axis_that_misses_its_size_names_both_sizes() -> None:
    contraction = two_levels()
    for node in (("index", 1, "i"), ("factor", 1, 0)):
        contraction.graph.nodes[node].update({"size": 7, "shape": (2, 7, 4)})
    with pytest.raises(GraphError, match=r"levels\[1\]: the output axis \(k i\) has size 14, the shape says 6"):
        check(contraction)


def test_a_symbolic_axis_that_misses_its_size() -> None:
    contraction = build_graph(families.low_rank((D, D), 2))
    contraction.graph.nodes[("index", 0, "i")]["size"] = D + 1
    contraction.graph.nodes[("factor", 0, 0)]["shape"] = (1, D + 1, 2)
    with pytest.raises(GraphError, match=r"output axis .* D \+ 1, the shape says D"):
        check(contraction)


UNREACHABLE = {
    "one-factor": ("i r, r j, s t -> i j", "factor 2 (s t)"),
    "two-factors": ("s t, i r, r j, t u -> i j", "factor 0 (s t)"),
    "scalar-of-one-index": ("i j, u -> i j", "factor 1 (u)"),
}


@pytest.mark.parametrize(("expression", "words"), UNREACHABLE.values(), ids=UNREACHABLE.keys())
def test_factors_without_a_way_to_an_axis(expression: str, words: str) -> None:
    names = {name: 2 for name in "rstu" if f" {name}" in f" {expression}"}
    spec = MLBTC((4, 4), [Level(1), Level.einsum(expression, names)])
    with pytest.raises(GraphError) as caught:
        check(build_graph(spec))
    assert str(caught.value).startswith("levels[1]: ")
    assert words in str(caught.value)
    assert "use scale" in str(caught.value)


def test_a_factor_that_reaches_one_axis_only_is_sound() -> None:
    check(build_graph(MLBTC((4, 4), [Level.einsum("i u, u v, j -> i j", {"u": 2, "v": 3})])))


def test_messages_name_the_line_of_a_file() -> None:
    text = 'shape: [4, 4]\nlevels:\n  - {blocks: 1}\n  - {einsum: "i j, s -> i j", sizes: {s: 2}}\n'
    spec = loads(text, source="spec.yaml")
    assert isinstance(spec, MLBTC)
    with pytest.raises(GraphError, match=r"^spec.yaml:4: levels\[1\]: factor 1 \(s\)"):
        check(build_graph(spec))


# Known gaps


def test_a_wrong_edge_is_named() -> None:
    contraction = two_levels()
    contraction.graph.add_edge(("factor", 1, 0), ("factor", 1, 1))
    with pytest.raises(GraphError, match=r"levels\[1\].*factor 0.*factor 1"):
        check(contraction)


WRONG_EDGES = {
    "tensors": (("factor", 0, 0), ("factor", 1, 0)),
    "indices": (("index", 0, "i"), ("index", 1, "i")),
    "tensor-and-index-of-another-level": (("factor", 0, 0), ("index", 1, "i")),
}


@pytest.mark.parametrize("edge", WRONG_EDGES.values(), ids=WRONG_EDGES.keys())
def test_no_edge_joins_two_levels(edge: tuple[Any, Any]) -> None:
    contraction = two_levels()
    contraction.graph.add_edge(*edge)
    with pytest.raises(GraphError):
        check(contraction)


def test_an_axis_of_an_unknown_index_is_a_graph_error() -> None:
    contraction = two_levels()
    contraction.graph.nodes[("axis", 1, "output")]["indices"] = ("k", "i", "z")
    with pytest.raises(MlbtcError, match="'z'"):
        check(contraction)
