"""Pictures of contraction graphs: valid XML, nothing on top of each other, nothing outside the sheet."""

from itertools import combinations
from xml.etree import ElementTree

import pytest

from mlbtc import MLBTC, families
from mlbtc.analysis.scene import Box, Dot, Line, Scene, arrange, to_svg
from tests.analysis.test_drawing import SPECS, drawing_of


def scene_of(spec: MLBTC, name: str = "matrix") -> Scene:
    return arrange(drawing_of(spec, name))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_boxes_neither_overlap_nor_leave_the_sheet(spec: MLBTC) -> None:
    scene = scene_of(spec)
    boxes = [shape for shape in scene.shapes if isinstance(shape, Box)]
    for box in boxes:
        assert 0 <= box.x < box.x + box.width <= scene.width
        assert 0 <= box.y < box.y + box.height <= scene.height
    for one, two in combinations(boxes, 2):
        apart = one.x + one.width <= two.x or two.x + two.width <= one.x
        assert apart or one.y + one.height <= two.y or two.y + two.height <= one.y, (one, two)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_dot_for_every_edge_and_a_wire_for_every_index(spec: MLBTC) -> None:
    scene, drawing = scene_of(spec), drawing_of(spec)
    wires = [shape for shape in scene.shapes if isinstance(shape, Line)]
    assert len(wires) == len({wire.y for wire in wires}) == sum(len(part.indices) for part in drawing.parts)
    at = {wire.y: wire for wire in wires}
    dots = [shape for shape in scene.shapes if isinstance(shape, Dot) and shape.y in at]
    assert len(dots) == sum(len(t.indices) for part in drawing.parts for t in part.tensors)
    assert all(at[dot.y].start <= dot.x <= at[dot.y].end and at[dot.y].colour == dot.colour for dot in dots)


def test_svg_is_xml_with_escaped_names() -> None:
    name = "<script>&\"'"
    text = to_svg(scene_of(families.low_rank((4, 6), 2), name))
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("}svg")
    assert name in "".join(root.itertext())
    assert "<script>" not in text
    assert text == to_svg(scene_of(families.low_rank((4, 6), 2), name))
