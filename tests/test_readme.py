"""The README shows what the code prints today, and every command in it runs."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# What sets up the machine itself is run by CI, not by a test of a checkout.
ELSEWHERE = ("pip install", "make ")


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a README command in a folder that holds the examples, with this interpreter and this checkout."""
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    line = re.sub(r"^mlbtc\b", f"{sys.executable} -m mlbtc", command)
    line = re.sub(r"^python\b", sys.executable, line)
    return subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def test_there_are_commands_to_run() -> None:
    assert len(commands()) >= 8


def updater() -> Any:
    spec = importlib.util.spec_from_file_location("update_readme", ROOT / "docs" / "update_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_parts_are_up_to_date() -> None:
    assert updater().fill(README) == README, "run python docs/update_readme.py"


def test_the_page_of_benchmarks_is_up_to_date() -> None:
    module = updater()
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    made = {"results": module.results()}
    assert module.fill(page, made) == page, "run python docs/update_readme.py"
    assert module.fill(page, {"results": "other"}) != page


def test_a_stale_part_is_noticed() -> None:
    stale = README.replace("1,048,576", "1,048,577", 1)
    assert updater().fill(stale) != stale


def test_the_quick_commands_run(folder: Path) -> None:
    for command in commands():
        if " train " not in command and not command.startswith(("mlbtc bench", "mlbtc sample")):
            done = run(command, folder)
            assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_sample_command_runs(folder: Path) -> None:
    (command,) = [c for c in commands() if c.startswith("mlbtc sample")]
    (training,) = [c for c in commands() if c.startswith("mlbtc train lm")]
    small = "--steps 3 --width 16 --heads 2 --layers 1 --context 32 --eval-windows 8"
    for line in (f"{training} {small}", command):
        done = run(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert done.stdout.startswith("def ")


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if " train " in c])
def test_the_training_commands_run(command: str, folder: Path) -> None:
    if "ETTh1.csv" in command:
        data = os.environ.get("MLBTC_DATA")
        if data is None:
            pytest.skip("MLBTC_DATA is not set: it names the folder that holds ETTh1.csv")
        command = command.replace("ETTh1.csv", str(Path(data) / "ETTh1.csv"))
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
