"""The cells of docs/transformers.md print what stands below them, and the example of nanoGPT trains."""

import contextlib
import io

import pytest

from tests.test_docs import DOCS, cells
from tests.training.test_examples import run

PAGE = "transformers.md"


def test_the_cells_of_the_page(without_compiler):
    pytest.importorskip("transformers", reason="transformers is not installed")
    names: dict[str, object] = {"__name__": "page"}
    assert len(cells(PAGE)) == (DOCS / PAGE).read_text("utf-8").count("```python") >= 5
    for code, expected in cells(PAGE):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, PAGE, "exec"), names)
        assert printed.getvalue() == expected, code


def test_the_example_learns(tmp_path, without_compiler):
    lines = [line.split() for line in run("nanogpt", tmp_path, "--steps", "4").splitlines()]
    assert [line[0] for line in lines] == ["standard", "generated", "own"]
    for line in lines:
        first, last = float(line[line.index("loss") + 1]), float(line[line.index("first,") + 1])
        assert last < first
