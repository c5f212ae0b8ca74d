"""Fixtures that several folders of tests share."""

import os

import pytest


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no C++ compiler be found, so that the target "auto" is the torch program; cpp has tests of its own."""
    monkeypatch.setenv("CXX", os.devnull)
