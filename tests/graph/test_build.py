"""Spec to contraction graph: nodes, edges, hyperedges, and how it prints."""

import pytest
from hypothesis import given, settings

from mlbtc import MLBTC, Level, families, loads, symbol
from mlbtc.graph import ContractionGraph, build_graph
from tests.oracles.networks import Network, networks

HYPER = MLBTC((6, 10), [Level.einsum("k i r, k j r, r -> (k i) (k j)", {"k": 2, "r": 4})])


def edges(contraction: ContractionGraph) -> set[tuple[object, object]]:
    """Return every edge with its tensor first."""
    return {(b, a) if a[0] == "index" else (a, b) for a, b in contraction.graph.edges}


def test_a_level_with_hyperedges() -> None:
    contraction = build_graph(HYPER)
    assert dict(contraction.graph.nodes(data=True)) == {
        ("index", 0, "k"): {"size": 2},
        ("index", 0, "i"): {"size": 3},
        ("index", 0, "r"): {"size": 4},
        ("index", 0, "j"): {"size": 5},
        ("axis", 0, "output"): {"indices": ("k", "i"), "size": 6, "range": (0, 6)},
        ("axis", 0, "input"): {"indices": ("k", "j"), "size": 10, "range": (0, 10)},
        ("factor", 0, 0): {"indices": ("k", "i", "r"), "shape": (2, 3, 4)},
        ("factor", 0, 1): {"indices": ("k", "j", "r"), "shape": (2, 5, 4)},
        ("factor", 0, 2): {"indices": ("r",), "shape": (4,)},
    }
    assert edges(contraction) == {
        (("axis", 0, "output"), ("index", 0, "k")),
        (("axis", 0, "output"), ("index", 0, "i")),
        (("axis", 0, "input"), ("index", 0, "k")),
        (("axis", 0, "input"), ("index", 0, "j")),
        (("factor", 0, 0), ("index", 0, "k")),
        (("factor", 0, 0), ("index", 0, "i")),
        (("factor", 0, 0), ("index", 0, "r")),
        (("factor", 0, 1), ("index", 0, "k")),
        (("factor", 0, 1), ("index", 0, "j")),
        (("factor", 0, 1), ("index", 0, "r")),
        (("factor", 0, 2), ("index", 0, "r")),
    }
    # k touches two factors and both axes, r three factors.
    assert contraction.graph.degree[("index", 0, "k")] == 4
    assert contraction.graph.degree[("index", 0, "r")] == 3


def test_what_it_tells_of_a_level() -> None:
    contraction = build_graph(HYPER)
    assert (contraction.shape, contraction.levels) == ((6, 10), 1)
    assert contraction.factors(0) == [("factor", 0, 0), ("factor", 0, 1), ("factor", 0, 2)]
    assert contraction.indices_of(("factor", 0, 1)) == ("k", "j", "r")
    assert (contraction.axis(0, "output"), contraction.axis(0, "input")) == (("k", "i"), ("k", "j"))
    assert contraction.sizes(0) == {"k": 2, "i": 3, "r": 4, "j": 5}


def test_levels_are_parts_of_their_own() -> None:
    contraction = build_graph(MLBTC((8, 8), [Level(1, 3), Level(4, 2), Level.einsum("i -> i i")]))
    assert contraction.levels == 3
    assert [len(contraction.factors(level)) for level in range(3)] == [2, 2, 1]
    assert [contraction.sizes(level)["i"] for level in range(3)] == [8, 2, 8]
    assert all(a[1] == b[1] for a, b in contraction.graph.edges)


def test_more_than_ten_factors_stay_in_order() -> None:
    contraction = build_graph(families.butterfly(2**12))
    assert [node[2] for node in contraction.factors(0)] == list(range(12))


def test_symbols_are_sizes() -> None:
    size = symbol("D")
    contraction = build_graph(families.low_rank((size, 4), "r"))
    assert contraction.sizes(0) == {"k": 1, "i": size, "r": symbol("r"), "j": 4}
    assert contraction.graph.nodes[("factor", 0, 0)]["shape"] == (1, size, symbol("r"))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(networks())
def test_edges_are_the_indices_of_the_tensors(drawn: Network) -> None:
    contraction = build_graph(drawn.spec)
    tensors = {("axis", 0, "output"): drawn.output, ("axis", 0, "input"): drawn.input}
    tensors |= {("factor", 0, number): names for number, names in enumerate(drawn.factors)}
    assert edges(contraction) == {(node, ("index", 0, name)) for node, names in tensors.items() for name in names}
    assert contraction.sizes(0) == drawn.sizes


def test_where_is_the_line_of_the_level_in_its_file() -> None:
    spec = loads("shape: [4, 4]\nlevels:\n  - {blocks: 1}\n  - {blocks: 2}\n", source="spec.yaml")
    assert isinstance(spec, MLBTC)
    assert build_graph(spec).where(1) == "spec.yaml:4: levels[1]"
    assert build_graph(families.dense((4, 4))).where(0) == "levels[0]"


def test_it_prints_so_that_a_person_can_read_it() -> None:
    assert str(build_graph(HYPER)).splitlines() == [
        "contraction graph of a (6 x 10) matrix",
        "  level 0: sizes {'k': 2, 'i': 3, 'r': 4, 'j': 5}",
        "    factor 0: k i r",
        "    factor 1: k j r",
        "    factor 2: r",
        "    axes: (k i) (k j)",
    ]


def test_equal_specs_print_equal_graphs() -> None:
    one, two = (MLBTC((12, 12), [Level(3, 2), Level(4)], name=name) for name in ("one", "two"))
    assert str(build_graph(one)) == str(build_graph(two))


def test_graphs_are_frozen() -> None:
    with pytest.raises((AttributeError, TypeError)):
        build_graph(HYPER).levels = 2
