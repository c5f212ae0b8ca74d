"""The pages in docs/ show what the code does today: their blocks run, and messages are those that inputs get."""

import doctest
import importlib
import os
import re
from pathlib import Path

import pytest
import yaml

import mlbtc
from mlbtc.attention import functional
from mlbtc.errors import MlbtcError
from mlbtc.spec.families import FAMILIES
from tests.pages import DOCS, Block, Reader, blocks

PAGES = sorted(DOCS.glob("*.md"))
BLOCKS = {page.name: blocks(page) for page in PAGES}
RUN = {name: [block for block in found if not block.session] for name, found in BLOCKS.items()}
SESSIONS = [page for page in PAGES if any(block.session for block in BLOCKS[page.name])]
NEEDS = {"transformers.md": "transformers"}
"""Pages whose blocks import a package that mlbtc can do without."""
LEAVES = {
    "page.md": ("report.html", "matrices.html", "layers.html"),
    "fitting.md": ("w.npy", "factors.safetensors", "found/*.yaml"),
    "tutorial.md": ("spec.yaml", "layer.py", "variants/index.md", "runs/*/report.md"),
}
"""Files that a page promises."""
HEADS = {
    "file": "",
    "level": "shape: [64, 48]\nlevels:\n",
    "attention": "attention:\n  width: 16\n  heads: 2\n  context: 8\n",
}
"""What stands above an input of docs/file-grammar.md."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_compiler: None) -> Reader:
    # What a page registers is gone after it.
    monkeypatch.setitem(FAMILIES, "cp", FAMILIES["dense"])
    monkeypatch.setitem(functional._KERNELS, "online", functional._KERNELS["reference"])
    monkeypatch.setattr(functional, "BACKENDS", functional.BACKENDS)
    return Reader(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", [name for name, found in RUN.items() if any(not block.mark for block in found)])
def test_the_blocks_of_a_page_run(name: str, reader: Reader, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    for block in RUN[name]:
        if not block.mark:
            reader.read(block)
    for pattern in LEAVES.get(name, ()):
        assert list(tmp_path.glob(pattern)), pattern


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, found in RUN.items() if any(b.mark == "slow" for b in found)])
def test_the_slow_blocks_of_a_page_run(name: str, reader: Reader, tmp_path: Path) -> None:
    data = os.environ.get("MLBTC_DATA")
    if data is None:
        pytest.skip("MLBTC_DATA is not set: it names the folder that holds ETTh1.csv and tinyshakespeare.txt")
    for file in ("ETTh1.csv", "tinyshakespeare.txt"):
        (tmp_path / file).symlink_to(Path(data) / file)
    (tmp_path / "book.txt").write_text("".join(page.read_text("utf-8") for page in PAGES), "utf-8")
    reader.shorter = shorter
    for block in RUN[name]:
        if not block.mark.startswith("not run"):
            reader.read(block)


def shorter(text: str) -> str:
    """Return a command or a cell that trains for three steps."""
    text = re.sub(r"\bsteps=\d+", "steps=3", text)
    return f"{text} --steps 3" if "mlbtc train" in text and "\n" not in text else text


def test_every_block_is_found() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        for language in ("python", "bash", "yaml"):
            found = sum(block.language == language for block in BLOCKS[page.name])
            assert found == len(re.findall(rf"^```{language}\b", text, re.M)), f"{page.name}: {language}"


def test_little_is_left_out() -> None:
    skipped = [(name, block.mark) for name, found in BLOCKS.items() for block in found if block.mark]
    assert [mark for _, mark in skipped].count("slow") <= 12
    assert len([mark for _, mark in skipped if mark != "slow"]) <= 8, skipped


class TestTheChecksCanFail:
    def test_another_output(self, reader: Reader) -> None:
        reader.read(Block("python", "print(1)\n", None, "", "1\n"))
        with pytest.raises(AssertionError, match="print"):
            reader.read(Block("python", "print(2)\n", None, "", "1\n"))

    def test_a_command_that_fails(self, reader: Reader) -> None:
        with pytest.raises(AssertionError, match="nowhere"):
            reader.read(Block("bash", "mlbtc analyze nowhere.yaml\n", None, "", None))
        with pytest.raises(AssertionError, match="false"):
            reader.read(Block("bash", "false\n", None, "", None))

    def test_a_cell_that_raises(self, reader: Reader) -> None:
        with pytest.raises(ZeroDivisionError):
            reader.read(Block("python", "1 / 0\n", None, "", None))

    def test_a_page(self, tmp_path: Path) -> None:
        (tmp_path / "page.md").write_text("```python\nx\n```\n\n```text\ny\n```\n\n<!-- slow -->\n```bash\nz\n```\n")
        assert blocks(tmp_path / "page.md") == [
            Block("python", "x\n", None, "", "y\n"),
            Block("bash", "z\n", None, "slow", None),
        ]


# The site ---------------------------------------------------------------------------------------------------------


def named_pages(entries: list[object]) -> list[str]:
    """Return the pages and patterns that a navigation names, in order."""
    found = []
    for entry in entries:
        match entry:
            case str():
                found.append(entry)
            case {"glob": str(pattern)}:
                found.append(pattern)
            case dict():
                for below in entry.values():
                    found += named_pages(below if isinstance(below, list) else [below])
    return found


def test_the_navigation_names_pages_that_exist_once_each() -> None:
    names = named_pages(yaml.safe_load((DOCS / ".nav.yml").read_text("utf-8"))["nav"])
    pages = [name for name in names if "*" not in name]
    assert len(pages) == len(set(pages))
    assert [name for name in pages if not (DOCS / name).is_file()] == []


def test_the_navigation_reaches_every_page() -> None:
    names = named_pages(yaml.safe_load((DOCS / ".nav.yml").read_text("utf-8"))["nav"])
    reached = {path for name in names for path in DOCS.glob(name)}
    assert set(DOCS.rglob("*.md")) - reached == set()


@pytest.mark.parametrize(
    "package",
    [
        "",
        ".analysis",
        ".attention",
        ".conversion",
        ".errors",
        ".fitting",
        ".integrations.transformers",
        ".mup",
        ".page",
    ],
)
def test_the_api_page_has_every_public_name(package: str) -> None:
    text = (DOCS / "api.md").read_text("utf-8")
    module = importlib.import_module(f"mlbtc{package}")
    public = getattr(module, "__all__", [name for name, value in vars(module).items() if isinstance(value, type)])
    shown = {identifier.rpartition(".")[2] for identifier in re.findall(r"^::: (\S+)$", text, re.M)}
    shown |= set(re.findall(r"^ {8}- (\w+)$", text, re.M))
    assert sorted(set(public) - shown) == []


def test_links_lead_to_files() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


# Messages and sessions --------------------------------------------------------------------------------------------


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
