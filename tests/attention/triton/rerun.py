"""Runs kernel tests of this folder in a process of their own."""

from pathlib import Path

from tests import triton_child


def rerun(name: str, *, interpreted: bool, slow: bool = False) -> None:
    """Run a file of this folder by pytest, its kernels interpreted on the CPU or compiled for the GPU."""
    triton_child.rerun(Path(__file__).parent / name, interpreted=interpreted, slow=slow)
