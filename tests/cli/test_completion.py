"""Completion of the shell: commands, files, and the words that an argument may be."""

import pytest
from typer.testing import CliRunner

from mlbtc.attention.build import TARGETS as ATTENTION_TARGETS
from mlbtc.cli.app import app
from mlbtc.codegen.initial import INITS
from mlbtc.codegen.targets import TARGETS
from mlbtc.training.attention import NAMES
from mlbtc.training.reproduce import EXPERIMENTS


def completed(*line: str) -> list[str]:
    """Return what bash is offered for the last word of `mlbtc LINE`."""
    words = " ".join(("mlbtc", *line))
    variables = {"_MLBTC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(line))}
    result = CliRunner().invoke(app, [], prog_name="mlbtc", env=variables)
    assert result.exit_code == 0
    return result.stdout.split()


def test_commands() -> None:
    assert completed("tr") == ["train"]
    assert {"analyze", "compile", "doctor"} <= set(completed(""))


def test_options() -> None:
    assert completed("doctor", "--ker") == ["--kernels"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("reproduce", ""), set(EXPERIMENTS)),
        (("compile", "spec.yaml", "--target", ""), {"auto", *TARGETS, *ATTENTION_TARGETS}),
        (("compile", "spec.yaml", "--init", ""), set(INITS)),
        (("train", "icl", "--attention", ""), set(NAMES)),
        (("analyze", "spec.yaml", "--format", ""), {"table", "json", "csv", "markdown"}),
    ],
    ids=lambda value: " ".join(value).strip() if isinstance(value, tuple) else "",
)
def test_the_words_are_those_that_the_command_takes(line: tuple[str, ...], words: set[str]) -> None:
    assert set(completed(*line)) == words


def test_other_words_are_left_to_the_shell() -> None:
    assert completed("train", "icl", "--attention", "specs/l") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Typer asks which shell it was started from; under a test there may be none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    result = CliRunner().invoke(app, ["--show-completion", shell], prog_name="mlbtc")
    assert result.exit_code == 0
    assert f"_MLBTC_COMPLETE=complete_{shell}" in result.stdout
