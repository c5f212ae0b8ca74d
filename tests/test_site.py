"""The site of docs/: it builds without a warning, has every page and name, and asks no other server for anything."""

import html
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="the site needs pip install '.[docs]'")
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent


def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Fetched(HTMLParser):
    """Collects what a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = "href" if tag == "link" else "src"
        if tag in ("link", "script", "img", "iframe", "source") and given.get(name) and given.get("rel") != "canonical":
            self.found.append(str(given[name]))


def fetched(page: str) -> list[str]:
    parser = Fetched()
    parser.feed(page)
    return parser.found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    line = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
class TestTheSite:
    def test_every_page_is_there_and_in_the_navigation(self, site: Path) -> None:
        start = (site / "index.html").read_text("utf-8")
        for page in ROOT.glob("docs/*.md"):
            assert (site / f"{page.stem}.html").is_file()
            assert f'href="{page.stem}.html"' in start, page.name

    def test_nothing_is_fetched_from_elsewhere(self, site: Path) -> None:
        pages = sorted(site.rglob("*.html"))
        assert len(pages) >= 20
        outside = {(page.name, url) for page in pages for url in fetched(page.read_text("utf-8")) if "//" in url}
        assert outside == set()
        styles = "".join(sheet.read_text("utf-8") for sheet in site.rglob("*.css"))
        assert re.findall(r"(?:@import|url\()\s*[\"']?https?:", styles) == []

    def test_files_outside_docs_come_along(self, site: Path) -> None:
        shown = html.unescape(re.sub(r"<[^>]+>", "", (site / "files/examples/image_blocks.py.html").read_text("utf-8")))
        code = (ROOT / "examples/image_blocks.py").read_text("utf-8")
        assert code.split("\n\n")[2] in shown
        assert (site / "files/benchmarks/results/linear.png").is_file()
        assert "](../" not in "".join(page.read_text("utf-8") for page in site.glob("*.html"))

    def test_signatures_and_docstrings_are_there(self, site: Path) -> None:
        text = (site / "api.html").read_text("utf-8")
        for name in ("mlbtc.compile", "mlbtc.attention.mlr_attention", "mlbtc.families.btt", "mlbtc.fit"):
            assert f'id="{name}"' in text, name
        assert "block tensor train" in text


def test_a_page_that_asks_another_server_is_noticed() -> None:
    page = '<link rel="stylesheet" href="https://elsewhere/a.css"><a href="https://elsewhere/"></a><img src="a.png">'
    assert fetched(page) == ["https://elsewhere/a.css", "a.png"]


class TestTheHooks:
    @pytest.mark.parametrize(
        ("page", "target", "link"),
        [
            ("faq.md", "costs.md", "costs.md"),
            ("attention.md", "../examples/image_blocks.py", "files/examples/image_blocks.py.md"),
            ("benchmarks.md", "../benchmarks/results/linear.png", "files/benchmarks/results/linear.png"),
            ("results/icl/report.md", "../../../examples/demo.py", "../../files/examples/demo.py.md"),
            ("files/CONTRIBUTING.md", "docs/adding-a-family.md", "../adding-a-family.md"),
            ("faq.md", "../nowhere.py", "../nowhere.py"),
        ],
    )
    def test_links(self, page: str, target: str, link: str) -> None:
        assert hooks().site_link(page, target) == link

    def test_reports_are_listed_with_titles_and_rows(self, tmp_path: Path) -> None:
        made = {
            "results/lm/report.md": "# lm, small\n",
            "results/lm/runs.csv": "a\n",
            "results/icl/report.md": "# icl\n",
        }
        for uri, text in made.items():
            (tmp_path / uri).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / uri).write_text(text, "utf-8")
        files = Files([File(uri, str(tmp_path), str(tmp_path), use_directory_urls=False) for uri in made])
        assert hooks().reports(files) == (
            "- [icl](results/icl/report.md)\n"
            "- [lm, small](results/lm/report.md) ([every run as a row](results/lm/runs.csv))"
        )
        assert hooks().reports(Files([])) == "There is no report yet."
