"""The pages of docs/ as a reader goes through them: from top to bottom, in a folder that holds the examples."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlbtc
from mlbtc.cli import main

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>slow|not run: [^\n]+) -->\n)?"
    r"```(?P<language>python|bash|yaml)(?: title=\"(?P<title>[^\"\n]+)\")?\n(?P<text>.*?)^```$"
    r"(?:\n\n```text\n(?P<shown>.*?)^```$)?",
    re.S | re.M,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: "python", "bash" or "yaml".
        text: what is in it.
        title: the file that a reader makes of it, None for none.
        mark: "slow", or "not run: " and why, from a comment above it; empty for neither.
        shown: what stands in a text block right below: it must be what is printed. None for no such block.
    """

    language: str
    text: str
    title: str | None
    mark: str
    shown: str | None

    @property
    def session(self) -> bool:
        """Whether it is an interactive session, which doctest runs."""
        return self.text.startswith(">>> ")


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that a reader can run, in order."""
    found = FENCE.finditer(page.read_text("utf-8"))
    return [Block(m["language"], m["text"], m["title"], m["mark"] or "", m["shown"]) for m in found]


def commands(block: Block) -> Iterator[str]:
    """Yield the commands of a shell block, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = re.sub(r"(^|\s\s+)#.*", "", line).strip()
        if command:
            yield command


class Reader:
    """Runs the blocks of one page, all in one folder and one namespace.

    Args:
        folder: where commands run and files are written.
        patch: enters the folder.
        shorter: makes a command quicker than the page has it.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, shorter: Callable[[str], str] = str) -> None:
        self.patch, self.shorter = patch, shorter
        self.names: dict[str, object] = {"__name__": "page"}
        (folder / "examples").symlink_to(ROOT / "examples")
        patch.chdir(folder)
        # Tables of the command line are as wide as the terminal.
        patch.setenv("COLUMNS", "120")

    def read(self, block: Block) -> None:
        """Do with a block what a reader does, and compare what it prints with what the page shows.

        Raises:
            AssertionError: something else was printed, or a command failed.
        """
        printed = self.run(block)
        assert block.shown is None or printed == block.shown, f"{block.text}\nprints\n{printed}"

    def run(self, block: Block) -> str:
        """Return what a block prints, once its file is written or its code has run."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if block.title is not None:
                Path(block.title).write_text(block.text, "utf-8")
            elif block.language == "python":
                # The annotations of this module are text, those of a page are not.
                exec(compile(self.shorter(block.text), "a page", "exec", dont_inherit=True), self.names)
            elif block.language == "bash":
                for command in commands(block):
                    self.command(self.shorter(command))
            else:
                mlbtc.loads(block.text)
        return printed.getvalue()

    def command(self, line: str) -> None:
        """Run a command, one of mlbtc in this process.

        Raises:
            AssertionError: it failed.
        """
        if not line.startswith("mlbtc "):
            done = self._elsewhere(line)
            print(done.stdout, end="")
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            return
        self.patch.setattr(sys, "argv", shlex.split(line))
        complaints = io.StringIO()
        with contextlib.redirect_stderr(complaints):
            try:
                main()
                code: object = 0
            except SystemExit as stop:
                code = stop.code
        assert not code, f"{line}\n{complaints.getvalue()}"

    def _elsewhere(self, line: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path.cwd()}"}
        ours = re.sub(r"^python\b", shlex.quote(sys.executable), line)
        ours = re.sub(r"^torchrun\b", f"{shlex.quote(sys.executable)} -m torch.distributed.run", ours)
        return subprocess.run(ours, shell=True, env=environment, capture_output=True, text=True, check=False)
