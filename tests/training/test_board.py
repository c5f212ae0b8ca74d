import importlib.util
import sys
import types

import pytest

from mlbtc.training import TrainingError
from mlbtc.training.board import Board, require_tensorboard
from mlbtc.training.tasks.in_context_regression import Config


class Writer:
    """Stands for torch's SummaryWriter, which needs the package."""

    written: list

    def __init__(self, folder, purge_step):
        type(self).written = [(folder, purge_step)]

    def add_scalar(self, name, value, step):
        self.written.append((name, value, step))

    def close(self):
        self.written.append("closed")


def test_without_the_package_the_option_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        Config(tensorboard=True, out=tmp_path / "run").resolved()
    assert not (tmp_path / "run").exists()


def test_numbers_are_written_per_step(tmp_path, monkeypatch):
    monkeypatch.setattr("mlbtc.training.board.require_tensorboard", lambda: None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    with Board(tmp_path, 4) as board:
        board.write(5, {"loss": 0.5, "name": "x", "dims": 3})
    assert Writer.written == [(str(tmp_path), 5), ("loss", 0.5, 5), ("dims", 3, 5), "closed"]


def test_no_folder_writes_nothing():
    with Board(None, 0) as board:
        board.write(1, {"loss": 0.5})


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_event_files_are_written(tmp_path):
    require_tensorboard()
    with Board(tmp_path, 0) as board:
        board.write(1, {"loss": 0.5})
    assert list(tmp_path.glob("events.out.tfevents*"))
