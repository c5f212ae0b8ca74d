import os
from pathlib import Path

import pytest
import torch
from torch import nn

from mlbtc.training import TrainingError, checkpoints, durable
from mlbtc.training.checkpoints import load_checkpoint, save_checkpoint, save_weights


def test_round_trip_keeps_the_newest_only(tmp_path):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_checkpoint(tmp_path, 9, other, {})
    save_checkpoint(tmp_path, 10, model, {"best": {"mse": 0.5}, "generator": torch.arange(4)})
    state = load_checkpoint(tmp_path, other)
    assert torch.equal(other.weight, model.weight)
    assert state["step"] == 10
    assert state["best"] == {"mse": 0.5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000010"]


def test_a_step_can_be_written_twice(tmp_path):
    model = nn.Linear(3, 2)
    for value in (1, 2):
        save_checkpoint(tmp_path, 5, model, {"value": value})
    assert load_checkpoint(tmp_path, model)["value"] == 2


def test_a_crash_while_writing_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    model = nn.Linear(3, 2)
    save_checkpoint(tmp_path, 1, model, {})
    before = model.weight.detach().clone()
    nn.init.zeros_(model.weight)

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, 2, model, {})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path, model)["step"] == 1
    assert torch.equal(model.weight, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]


def test_no_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_checkpoint(tmp_path, nn.Linear(3, 2))


def test_a_checkpoint_of_another_model(tmp_path):
    save_checkpoint(tmp_path, 1, nn.Linear(3, 2), {})
    with pytest.raises(TrainingError, match="not a checkpoint of this run"):
        load_checkpoint(tmp_path, nn.Linear(4, 2))


class Dangerous:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_state_file_cannot_run_code(tmp_path, capsys):
    save_checkpoint(tmp_path, 1, nn.Linear(3, 2), {"payload": Dangerous()})
    with pytest.raises(TrainingError, match="not a checkpoint"):
        load_checkpoint(tmp_path, nn.Linear(3, 2))
    assert "executed" not in capsys.readouterr().out


def test_weights_are_replaced_whole(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(nn.Linear(3, 2), path)
    save_weights(nn.Linear(5, 2), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


class PowerCut(BaseException):
    pass


def dying_after(monkeypatch, calls):
    """Let everything that touches the disk fail behind so many calls, and with it whatever would tidy up."""
    left = iter(range(calls))

    def mortal(function):
        def call(*args, **options):
            if next(left, None) is None:
                raise PowerCut
            return function(*args, **options)

        return call

    for module, names in ((os, ("replace", "fsync")), (durable, ("remove",)), (checkpoints, ("remove",))):
        for name in names:
            monkeypatch.setattr(module, name, mortal(getattr(module, name)))
    monkeypatch.setattr(torch, "save", mortal(torch.save))
    monkeypatch.setattr(Path, "unlink", mortal(Path.unlink))


@pytest.mark.parametrize("step", [7, 8], ids=["the same step", "the next step"])
def test_whenever_the_machine_dies_the_latest_checkpoint_is_whole(tmp_path, monkeypatch, step):
    old, new, found = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    outcomes = []
    for calls in range(100):
        folder = tmp_path / str(calls)
        save_checkpoint(folder, 7, old, {"value": "old"})
        try:
            with monkeypatch.context() as patch:
                dying_after(patch, calls)
                save_checkpoint(folder, step, new, {"value": "new"})
        except PowerCut:
            pass
        else:
            outcomes.append("done")
        state = load_checkpoint(folder, found)
        assert torch.equal(found.weight, {"old": old, "new": new}[state["value"]].weight)
        outcomes.append(state["value"])
        save_checkpoint(folder, 9, new, {})
        assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000009"]
        if outcomes[-2:] == ["done", "new"]:
            break
    assert outcomes[-2:] == ["done", "new"]
    assert outcomes.count("old") > 5
    assert outcomes.count("new") > 1


@pytest.mark.parametrize("text", ["step-00000002", "../elsewhere", "", "/etc"])
def test_a_pointer_that_leads_nowhere(tmp_path, text):
    save_checkpoint(tmp_path, 1, nn.Linear(3, 2), {})
    (tmp_path / "latest").write_text(text)
    with pytest.raises(TrainingError, match=r"names .* no checkpoint in"):
        load_checkpoint(tmp_path, nn.Linear(3, 2))
