"""The example of nanoGPT trains; tests/test_docs.py runs the cells of docs/transformers.md."""

from tests.training.test_examples import run


def test_the_example_learns(tmp_path, without_compiler):
    lines = [line.split() for line in run("nanogpt", tmp_path, "--steps", "4").splitlines()]
    assert [line[0] for line in lines] == ["standard", "generated", "own"]
    for line in lines:
        first, last = float(line[line.index("loss") + 1]), float(line[line.index("first,") + 1])
        assert last < first
