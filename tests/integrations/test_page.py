"""The examples run, and that of nanoGPT trains; tests/test_docs.py runs the cells of docs/transformers.md."""

import pytest

from tests.training.test_examples import run


@pytest.mark.slow
def test_the_example_learns(tmp_path, without_compiler):
    lines = [line.split() for line in run("nanogpt", tmp_path, "--steps", "4").splitlines()]
    assert [line[0] for line in lines] == ["standard", "generated", "own"]
    for line in lines:
        first, last = float(line[line.index("loss") + 1]), float(line[line.index("first,") + 1])
        assert last < first


@pytest.mark.slow
def test_the_example_of_conversion_runs(tmp_path, without_compiler):
    pytest.importorskip("transformers", reason="transformers is not installed")
    lines = run("convert_transformers", tmp_path, "--steps", "2").splitlines()
    assert [line.split()[0] for line in lines] == [
        "dense",
        *["24|8,"] * 2,
        *["16|16,"] * 2,
        *["8|8|8|8,"] * 2,
        "low_rank,",
        "btt,",
    ]
