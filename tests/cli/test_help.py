"""`mlbtc --help` is the manual: every command teaches with an example that exists."""

import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import mlbtc
from mlbtc.cli.app import app
from tests.cli.command import ROOT, Command, fresh

RUN = CliRunner()
JOINED = [
    "analyze",
    "compile",
    "generate",
]


def test_help_of_the_program() -> None:
    result = RUN.invoke(app, ["--help"])
    assert result.exit_code == 0
    for word in (
        "analyze",
        "compile",
        "generate",
        "train",
        "sample",
        "bench",
        "shape: [D, D]",
        "levels:",
        "exits with 0",
    ):
        assert word in result.stdout


def test_the_help_has_the_commands_that_it_names() -> None:
    registered = set(getattr(get_command(app), "commands", {}))
    assert registered >= {"analyze", "compile", "train", "bench"}
    shown = set(re.findall(r"^ {4,}mlbtc (\w+)", RUN.invoke(app, ["--help"]).stdout, re.M))
    assert shown
    assert shown <= registered


@pytest.mark.parametrize("command", JOINED)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_shows_an_example(command: str, flag: str) -> None:
    result = RUN.invoke(app, [command, flag])
    assert result.exit_code == 0
    examples = re.findall(rf"^ +mlbtc {command} \S+", result.stdout, re.M)
    assert examples, "the example keeps its own line"
    for file in re.findall(r"examples/specs/\w+\.yaml", result.stdout):
        assert (ROOT / file).is_file()


@pytest.mark.parametrize("command", JOINED)
def test_the_examples_of_the_help_run(command: str, mlbtc: Command, tmp_path: Path) -> None:
    found = RUN.invoke(app, [command, "--help"]).stdout
    lines = [line.split() for line in re.findall(rf"^ +mlbtc ({command} .+)", found, re.M)]
    assert lines
    for line in lines:
        words = [str(ROOT / word) if word.startswith("examples/") else word for word in line]
        words = [
            str(tmp_path / word) if word.endswith((".html", ".py", ".svg", "variants/")) else word for word in words
        ]
        done = mlbtc(*words)
        assert done.code == 0, done.err


def test_no_arguments_show_the_help(mlbtc: Command) -> None:
    done = mlbtc()
    assert "Usage" in done.out + done.err
    assert "Traceback" not in done.err


def test_version(mlbtc: Command) -> None:
    assert mlbtc("--version").out == f"mlbtc {mlbtc_version()}\n"


def mlbtc_version() -> str:
    return mlbtc.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyse", "x.yaml"], ["analyze"], ["analyze", "x.yaml", "--batch", "many"],
        ["analyze", "x.yaml", "--format", "xml"], ["compile"], ["compile", "x.yaml", "--nothing"],
    ],
    ids=lambda a: " ".join(a),
)  # fmt: skip
def test_bad_command_lines(arguments: list[str], mlbtc: Command) -> None:
    done = mlbtc(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Error" in done.err
    assert "Traceback" not in done.err


def test_the_module_runs(tmp_path: Path) -> None:
    done = fresh("--version", folder=tmp_path)
    assert done == (0, f"mlbtc {mlbtc.__version__}\n", "")
