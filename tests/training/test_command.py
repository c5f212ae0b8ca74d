import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlbtc.cli.train import app
from mlbtc.errors import MlbtcError
from mlbtc.training import Interrupted
from mlbtc.training.tasks import in_context_regression

SPECS = Path(__file__).resolve().parents[2] / "examples" / "specs"
QUICK = ["--steps", "3", "--batch", "4"]


def invoke(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(result.exception, MlbtcError):
        raise result.exception
    return result


@pytest.mark.parametrize(
    "arguments",
    [
        ["icl", "--dims", "2", *QUICK],
        ["icl", "--attention", "mlr", "--dims", "2", "--points", "3", "--layers", "1", *QUICK],
        ["icl", "--attention", SPECS / "icl_mlr.yaml", *QUICK],
        ["icl", "--dims", "2", "--mup", "--base-width", "16", "--ema", "0.9", "--accumulate", "2", *QUICK],
        ["icl", "--dims", "2", "--layers", "2", "--mlp", "dense", "--mlp", SPECS / "mlp_btt.yaml", *QUICK],
        ["icl", "--dims", "2", "--attention", "standard", "--attention", "mlr", "--precision", "bf16", *QUICK],
        ["icl", "--dims", "2", "--warmup", "1", "--schedule", "cosine", "--decay-steps", "3", *QUICK],
        ["forecast", "--data", "synthetic", "--attention", SPECS / "forecast_mlr.yaml", *QUICK],
        ["forecast", "--data", "synthetic", "--attention", "mlr", "--horizon", "24", "--protocol", "positions", *QUICK],
    ],
    ids=["icl", "mlr", "file", "mup", "mlp", "layers", "cosine", "forecast-file", "forecast-positions"],
)
def test_a_command_trains_and_says_where_everything_is(tmp_path, arguments):
    result = invoke(*arguments, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for name in ("report.md", "metrics.jsonl", "config.json"):
        assert (tmp_path / "run" / name).is_file()
    assert str(tmp_path / "run" / "report.md") in result.output
    assert "model" in result.output
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_checkpoints_are_as_often_as_asked(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr("mlbtc.training.trainer.save_checkpoint", lambda *args, **options: saved.append(args))
    invoke("icl", "--dims", "2", *QUICK, "--checkpoint-every", "2", "--out", tmp_path / "run")
    assert len(saved) == 2  # behind step 2, and behind the last one, 3


def test_resume_goes_on(tmp_path):
    invoke("icl", "--dims", "2", *QUICK, "--out", tmp_path / "run")
    assert invoke("icl", "--resume", tmp_path / "run", "--steps", "5").exit_code == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["icl", "--resume", "x", "--seed", "1"], "--seed 1 cannot change beside --resume"),
        (["icl", "--resume", "x", "--checkpoint-every", "9"], "--checkpoint-every 9 cannot change beside --resume"),
        (["icl", "--checkpoint-every", "0"], "--checkpoint-every"),
        (["icl", "--resume", "/nowhere"], "not a run folder"),
        (["icl", "--attention", SPECS / "icl_mlr.yaml", "--width", "64"], "--width 64 contradicts .*icl_mlr.yaml"),
        (["icl", "--attention", SPECS / "monarch.yaml"], "expected an attention spec"),
        (["icl", "--device", "cuda:99"], "not available here"),
        (["icl", "--mup"], "--mup needs --base-width"),
        (["icl", "--mlp", SPECS / "monarch.yaml"], r"monarch.yaml:3: shape: a 128 x 32 matrix is wanted"),
        (["forecast", "--data", "nowhere.csv"], "no such file"),
        (["forecast", "--steps", "0"], "--steps"),
    ],
)
def test_bad_input_is_one_error_and_leaves_no_folder(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MlbtcError, match=message):
        invoke(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_says_how_to_go_on(monkeypatch):
    def interrupt(*args, **options):
        raise Interrupted(7, Path("runs/icl"))

    monkeypatch.setattr(in_context_regression, "run", interrupt)
    result = invoke("icl")
    assert result.exit_code == 130
    assert "stopped after step 7" in result.output
    assert "mlbtc train icl --resume runs/icl" in result.output


@pytest.mark.parametrize("command", ["icl", "forecast"])
def test_help_teaches_without_torch(command):
    code = (
        "import sys; from typer.testing import CliRunner; from mlbtc.cli.train import app\n"
        f"print(CliRunner().invoke(app, [{command!r}, '--help']).output)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"\n      mlbtc train {command} --attention" in done.stdout or f"mlbtc train {command} --data" in done.stdout
    assert done.stdout.rstrip().endswith("False")
