"""The command line as a fixture."""

import pytest

from tests.cli.command import Command


@pytest.fixture
def mlbtc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)
