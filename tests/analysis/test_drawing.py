"""Contraction graphs as text: every edge of the graph, and names that cannot break the file."""

import re

import pytest

from mlbtc import MLBTC, Level, families
from mlbtc.analysis.drawing import Drawing, describe, edges, to_dot, to_mermaid
from mlbtc.graph import build_graph, check

SPECS = {
    "mlr": families.mlr((64, 64), [4, 3, 2, 1]),
    "butterfly": families.butterfly(1024),
    "hyperedge": MLBTC((4, 5), [Level.einsum("i h, h, j h -> i j", {"h": 3})]),
    "symbols": families.btt(("D", "D"), "s"),
}


def drawing_of(spec: MLBTC, name: str = "matrix") -> Drawing:
    return describe(check(build_graph(spec)), name)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_edge_of_the_graph(spec: MLBTC) -> None:
    drawing, graph = drawing_of(spec), build_graph(spec).graph
    drawn = [pair for part in drawing.parts for pair in edges(part)]
    assert len(drawn) == len(set(drawn)) == graph.number_of_edges()
    assert sum(len(part.tensors) + len(part.indices) for part in drawing.parts) == graph.number_of_nodes()
    assert re.findall(r"(\w+) -- (\w+);", to_dot(drawing)) == drawn
    assert re.findall(r"(\w+) --- (\w+)$", to_mermaid(drawing), re.M) == drawn


def test_roles() -> None:
    (part,) = drawing_of(SPECS["symbols"]).parts
    assert {index.name: index.role for index in part.indices} == {
        "b": "output", "a": "output", "c": "input", "d": "input", "s": "rank",
    }  # fmt: skip
    (part,) = drawing_of(families.block_diagonal((6, 9), 3)).parts
    assert [(i.name, i.role) for i in part.indices if i.role == "block"] == [("k", "block")]


def test_names_are_escaped() -> None:
    drawing = drawing_of(families.dense((2, 3)), 'a"b\\<c>&#d')
    assert r'label="a\"b\\<c>&#d: 2 x 3";' in to_dot(drawing)
    assert r'title: "a\"b\\<c>&#d: 2 x 3"' in to_mermaid(drawing)


def test_the_same_graph_gives_the_same_text() -> None:
    one, two = (drawing_of(families.butterfly(64)) for _ in range(2))
    assert (to_dot(one), to_mermaid(one)) == (to_dot(two), to_mermaid(two))
