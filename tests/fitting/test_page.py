"""The commands of docs/fitting.md run one after another in one folder."""

import re
from pathlib import Path

from tests.test_readme import ROOT, run


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "fitting.md").read_text("utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.S) for line in block.splitlines()]
    assert sum(line.startswith("mlbtc fit") for line in lines) == 1
    assert sum(line.startswith("mlbtc search") for line in lines) == 2
    for line in lines:
        done = run(line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "factors.safetensors").stat().st_size > 8 * 3 * 2 * (64 + 128)
    assert list((tmp_path / "found").glob("*.yaml"))
