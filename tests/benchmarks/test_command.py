"""`mlbtc bench`, from arguments to a file."""

import json
import subprocess
import sys

import pytest

from mlbtc.benchmarks import linear
from mlbtc.cli import main

QUICK = ("--seconds-per-case", "0.001", "--repetitions", "1", "--warmup", "0", "--threads", "1")


@pytest.fixture
def mlbtc(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mlbtc", "bench", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code or 0, captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("suite", "arguments", "modes"),
    [
        ("linear", ("--width", 32, "--tokens", 3, "--case", "btt", "--case", "low"), 10),
        ("attention", ("--tokens", 9, "--tokens", 16, "--heads", 1, "--no-memory"), 20),
        ("decode", ("--tokens", 9, "--heads", 1), 5),
    ],
)
def test_from_arguments_to_a_file(mlbtc, tmp_path, suite, arguments, modes):
    out = tmp_path / "out.json"
    code, shown, _ = mlbtc(suite, *arguments, *QUICK, "--seed", 5, "--out", out)
    assert code == 0, shown
    assert shown.startswith(f"{suite}: ")
    assert ("token" if suite == "decode" else "forward+backward") in shown
    found = json.loads(out.read_text())
    assert (found["suite"], found["settings"]["seed"], found["settings"]["threads"]) == (suite, 5, 1)
    assert len(found["results"]) == modes


def test_several_threads_and_one_head(mlbtc, tmp_path):
    out = tmp_path / "out.json"
    options = ("--tokens", 64, "--heads", 1, "--case", "8 x 8", "--threads", 2, *QUICK, "--out", out)
    code, shown, _ = mlbtc("decode", *options)
    assert code == 0, shown
    assert "times the memory of sdpa" in shown
    found = json.loads(out.read_text())
    assert [result["sizes"]["threads"] for result in found["results"]] == [2, 1]
    assert found["command"].startswith("mlbtc bench decode --tokens 64")
    pytest.importorskip("matplotlib")
    assert mlbtc("figure", out)[0] == 0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("linear", "--width", "33"), "--width takes a power of 2"),
        (("linear", "--resume"), "--resume needs --out"),
        (("linear", "--case", "bt rank 1"), "--case bt rank 1: no case has that name; did you mean 'btt rank 1'?"),
        (("figure", "nowhere.json"), "nowhere.json: cannot be read as a record: No such file"),
        (("linear", "--threads", "0"), "--threads takes at least 1, found 0"),
        (("linear", "--seconds-per-case", "-1"), "--seconds-per-case takes more than 0"),
        (("decode", "--case", "9 x 9"), "--case 9 x 9: there is no such case"),
        (("attention", "--backend", "cuda"), "--backend cuda: there is no such backend"),
        (("attention", "--out", "no/such/folder.json"), "--out no/such/folder.json: the folder no/such does not exist"),
    ],
)
def test_bad_flags_are_one_message(mlbtc, arguments, message):
    code, shown, err = mlbtc(*arguments)
    assert (code, shown) == (2, "")
    assert err.startswith("mlbtc: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("suite", "examples"), [("linear", 2), ("attention", 3), ("decode", 3)])
def test_help_teaches(mlbtc, suite, examples):
    code, shown, _ = mlbtc(suite, "--help")
    assert code == 0
    assert shown.count(f"    mlbtc bench {suite} --") == examples


def test_importing_the_command_imports_no_torch():
    code = "import sys, mlbtc.cli.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_and_claims_and_the_figure(mlbtc, tmp_path):
    out, drawn = tmp_path / "out.json", tmp_path / "out.svg"
    sizes = ("--width", 32, "--tokens", 3, "--tokens", 70, "--threads", 1, "--threads", 2, "--case", "monarch")
    code, shown, _ = mlbtc("linear", *sizes, *QUICK[:-2], "--out", out)
    assert code == 0, shown
    # One claim at such a width, for both modes, numbers of tokens and numbers of threads.
    assert "claims of being no slower: 8 checked" in shown
    found = json.loads(out.read_text())
    assert found["command"].startswith("mlbtc bench linear --width 32 --tokens 3")
    assert set(found["machine"]["peers"]) == {"torch-structured", "linear-operator", "tensorly-torch"}
    assert [result["sizes"] for result in found["results"][::2]] == [
        {"width": 32, "tokens": tokens, "threads": threads} for threads in (1, 2) for tokens in (3, 70)
    ]
    pytest.importorskip("matplotlib")
    code, shown, _ = mlbtc("figure", out, "-o", drawn)
    assert (code, shown) == (0, f"wrote {drawn}\n")
    assert "<svg" in drawn.read_text()
    assert [path.name for path in tmp_path.glob("*.svg")] == ["out.svg"]


def test_a_figure_of_something_else(mlbtc, tmp_path):
    for text, message in (("[]", "a record of linear, attention or decode"), ("{", "cannot be read as a record")):
        (tmp_path / "other.json").write_text(text)
        code, _, err = mlbtc("figure", tmp_path / "other.json", "-o", tmp_path / "x.png")
        assert code == 2
        assert message in err
        assert not (tmp_path / "x.png").exists()


def test_interrupted_then_resumed(mlbtc, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    names = ("--case", "btt rank 1", "--case", "btt rank 2")
    sizes = ("linear", "--width", 32, "--tokens", 3, *names, *QUICK, "--out", out)
    build, built = linear.build_linear, []

    def stopping(name, *rest):
        if name == "btt rank 2":
            raise KeyboardInterrupt
        return build(name, *rest)

    def counting(name, *rest):
        built.append(name)
        return build(name, *rest)

    monkeypatch.setattr(linear, "build_linear", stopping)
    code, shown, err = mlbtc(*sizes)
    assert (code, "btt rank 1" in shown, "wrote" in shown) == (130, True, False)
    assert "interrupted, 2 of 3 cases are missing" in err
    first = json.loads(out.read_text())
    assert (first["missing_cases"], len(first["results"])) == (2, 2)
    monkeypatch.setattr(linear, "build_linear", counting)
    assert "go on with it by --resume" in mlbtc(*sizes)[2]
    code, _, err = mlbtc(*sizes, "--seed", 1, "--resume")
    assert (code, "its command is" in err) == (2, True)
    assert json.loads(out.read_text()) == first
    code, shown, err = mlbtc(*sizes, "--resume")
    assert code == 0, err
    assert built == ["btt rank 2"]
    last = json.loads(out.read_text())
    assert (last["missing_cases"], len(last["results"]), last["results"][:2]) == (0, 6, first["results"])
