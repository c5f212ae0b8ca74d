import io
import json

import pytest
from rich.console import Console

from mlbtc.training import TrainingError
from mlbtc.training.runs import RunFolder, load_config, open_run
from mlbtc.training.tasks import forecasting
from mlbtc.training.tasks.in_context_regression import Config


def config(tmp_path, **options):
    return Config(out=tmp_path / "run", **options).resolved()


def start_run(config, inputs):
    return open_run(config, inputs, resume=False, console=Console(file=io.StringIO()))


def test_the_config_comes_back(tmp_path):
    first = config(tmp_path, attention="mlr", steps=7)
    folder = start_run(first, {})
    assert load_config(Config, folder.root) == first
    assert load_config(Config, folder.root, steps=9, device=None).steps == 9
    stored = json.loads(folder.config.read_text())
    assert {"torch", "python", "mlbtc", "threads"} <= stored["versions"].keys()
    assert stored["config"]["seed"] == 0


def test_a_moved_folder_resumes_where_it_is(tmp_path):
    start_run(config(tmp_path), {})
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert load_config(Config, moved).out == moved


def test_an_earlier_run_is_moved_aside(tmp_path):
    for steps in (1, 2, 3):
        start_run(config(tmp_path, steps=steps), {})
    found = {path.name: load_config(Config, path).steps for path in tmp_path.iterdir()}
    assert found == {"run": 3, "run.1": 1, "run.2": 2}


def test_moving_a_run_is_said(tmp_path):
    start_run(config(tmp_path), {})
    console = Console(file=io.StringIO(), width=20)
    open_run(config(tmp_path), {}, resume=False, console=console)
    assert f"{tmp_path / 'run'} is in {tmp_path / 'run.1'} now" in console.file.getvalue()


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    start_run(config(tmp_path), {})
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(TrainingError, match="not a run folder"):
        start_run(config(tmp_path), {})
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(TrainingError, match="--out"):
        start_run(config(tmp_path), {})


def test_changed_data_is_noticed(tmp_path):
    start_run(config(tmp_path), {"sha256": "a"})
    with pytest.raises(TrainingError, match="sha256 was a, found b"):
        open_run(config(tmp_path), {"sha256": "b"}, resume=True, console=Console())


def test_the_task_must_agree(tmp_path):
    start_run(config(tmp_path), {})
    with pytest.raises(TrainingError, match="a run of the task 'icl', not of 'forecast'"):
        load_config(forecasting.Config, tmp_path / "run")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"task": "icl", "config": 3}'])
def test_a_broken_config(tmp_path, text):
    RunFolder(tmp_path).config.write_text(text)
    with pytest.raises(TrainingError):
        load_config(Config, tmp_path)


def test_no_run_folder(tmp_path):
    with pytest.raises(TrainingError, match="not a run folder: it has no config"):
        load_config(Config, tmp_path / "nowhere")


def test_what_a_killed_start_left_is_no_obstacle(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.partial").write_text("{")
    start_run(config(tmp_path, steps=3), {})
    assert load_config(Config, tmp_path / "run").steps == 3
