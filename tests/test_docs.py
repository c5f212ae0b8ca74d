"""The pages in docs/ show what the code does today: what cells print, and which messages inputs get."""

import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

import mlbtc
from mlbtc.errors import MlbtcError
from mlbtc.spec.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SESSIONS = [page for page in sorted(DOCS.glob("*.md")) if ">>> " in page.read_text("utf-8")]
HEADS = {
    "file": "",
    "level": "shape: [64, 48]\nlevels:\n",
    "attention": "attention:\n  width: 16\n  heads: 2\n  context: 8\n",
}
"""What stands above an input of docs/file-grammar.md."""


def cells(page: str) -> list[tuple[str, str]]:
    """Return every Python cell of a page with what it prints."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S)


@pytest.mark.parametrize(
    ("page", "least"), [("theory.md", 6), ("adding-a-family.md", 2), ("costs.md", 1), ("fitting.md", 4)]
)
def test_cells_print_what_stands_below_them(page: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "cp", FAMILIES["dense"])  # what a page registers is gone after it
    names: dict[str, object] = {}
    assert len(cells(page)) >= least
    assert len(cells(page)) == (DOCS / page).read_text("utf-8").count("```python")
    for code, expected in cells(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), names)
        assert printed.getvalue() == expected, code


def messages() -> list[tuple[str, str, str]]:
    """Return the kind, the input and the message of every error that the manual shows."""
    text = (DOCS / "file-grammar.md").read_text("utf-8")
    found = []
    for kind, block in re.findall(r"<!-- errors: (\w+) -->\n```text\n(.*?)\n```", text, re.S):
        for pair in block.split("\n\n"):
            given, _, message = pair.partition("spec.yaml:")
            found.append((kind, given, f"spec.yaml:{message}"))
    return found


def test_the_manual_shows_messages() -> None:
    assert len(messages()) >= 90


@pytest.mark.parametrize(("kind", "given", "message"), messages())
def test_messages_are_those_of_the_manual(kind: str, given: str, message: str) -> None:
    with pytest.raises(MlbtcError) as caught:
        mlbtc.analyze(mlbtc.loads(HEADS[kind] + given, source="spec.yaml"))
    assert str(caught.value) == message


def test_there_are_pages_with_sessions() -> None:
    assert "algebra.md" in {page.name for page in SESSIONS}


@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: page.name)
def test_sessions_print_what_the_page_says(page: Path) -> None:
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 0
    assert failed == 0
