"""Kernels of matrices in Triton's interpreter, in a process of their own."""

from pathlib import Path

import pytest

from tests.triton_child import rerun

pytest.importorskip("triton", reason="triton is not installed")

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("interpreted_*.py")))
def test_interpreted(name: str) -> None:
    rerun(FOLDER / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["interpreted_matrix.py"])
def test_interpreted_at_length(name: str) -> None:
    rerun(FOLDER / name, slow=True)
