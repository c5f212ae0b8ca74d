"""The page in headless Chromium: sliders against the report, keyboard, phone width, contrast, and no network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import mlbtc
from mlbtc.analysis.sweep import Sweep
from mlbtc.page import render_page
from tests.cli.command import SPECS
from tests.page.engine import expected, pick

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SPEC = mlbtc.load(SPECS / "local_and_global.yaml")
LAYERS = [mlbtc.load(SPECS / f"{name}_attention.yaml") for name in ("mlr", "standard", "mlbtc")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install 'mlbtc[browser]'")
    with api.sync_playwright() as playwright:
        bundled = Path(playwright.chromium.executable_path)
        program = next(filter(None, map(shutil.which, BROWSERS)), None) or (str(bundled) if bundled.exists() else None)
        if program is None:
            pytest.skip("no Chromium: install one, or run `playwright install chromium`")
        # A container without user namespaces has no sandbox, and the pages are our own.
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page in a browser, and what went wrong in it."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def text(self, id_: str) -> str:
        found = self.page.evaluate("(id) => document.getElementById(id).textContent", id_)
        assert isinstance(found, str)
        return found

    def number(self, id_: str) -> int:
        return int(self.text(id_).replace(",", ""))

    def move(self, slider: int, position: int) -> int:
        """Move a slider and return the value that it says."""
        self.page.evaluate(
            "([id, position]) => { const e = document.getElementById(id); e.value = position;"
            " e.dispatchEvent(new Event('input', { bubbles: true })); }",
            [f"slider-{slider}", str(position)],
        )
        return int(self.page.get_attribute(f"#slider-{slider}", "aria-valuetext"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    pages = {"matrix": render_page([SPEC]), "layers": render_page(LAYERS)}
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in pages}


def opened(browser: Any, file: Path, **options: Any) -> Iterator[Opened]:
    """Yield an open page; then check that nothing went wrong in it, and that it fetched nothing."""
    found = Opened(browser, file, **options)
    yield found
    found.context.close()
    assert found.problems == []
    assert found.requests == [file.as_uri()]


@pytest.fixture
def matrix(browser: Any, files: dict[str, Path]) -> Iterator[Opened]:
    yield from opened(browser, files["matrix"])


@pytest.fixture
def layers(browser: Any, files: dict[str, Path]) -> Iterator[Opened]:
    yield from opened(browser, files["layers"])


PHONE = {"viewport": {"width": 360, "height": 740}}
SCHEMES = {"light": "matrix", "dark": "layers"}


@pytest.fixture(params=SCHEMES)
def phone(request: Any, browser: Any, files: dict[str, Path]) -> Iterator[Opened]:
    yield from opened(browser, files[SCHEMES[request.param]], color_scheme=request.param, **PHONE)


@pytest.fixture(params=SCHEMES)
def themed(request: Any, browser: Any, files: dict[str, Path]) -> Iterator[Opened]:
    yield from opened(browser, files["matrix"], color_scheme=request.param)


def agrees(opened: Opened, spec: Any, number: int, values: dict[str, int], tokens: int) -> None:
    """Compare every number of a section with the report."""
    wanted = expected(spec, values, tokens)
    assert wanted is not None
    keys = opened.page.evaluate("(number) => MODELS[number].measures.map((measure) => measure.key)", number)
    for place, key in enumerate(keys):
        assert opened.number(f"s{number}-m{place}") == pick(wanted, key)["value"], key
    assert opened.text(f"s{number}-certainty") == f"({wanted['rank']['certainty']})"
    assert opened.number(f"c{number}-macs") == wanted["macs"]["value"]
    ratio = wanted["dense"]["macs"]["value"] / wanted["macs"]["value"]
    assert opened.text(f"c{number}-macs-ratio") == f"{ratio:.4g}"
    for place, step in enumerate(wanted["steps"]):
        assert opened.number(f"s{number}-t{place}-macs") == step["macs"]["value"]
        assert opened.number(f"s{number}-t{place}-bytes_moved") == step["bytes"]["value"]
        assert opened.text(f"s{number}-t{place}-text") == step["step"].partition(": ")[0]


def test_sliders_show_the_numbers_of_the_report(matrix: Opened) -> None:
    for size, tokens in ((3, 2), (17, 40), (40, 11)):
        values = {"D": matrix.move(0, size)}
        agrees(matrix, SPEC, 0, values, matrix.move(1, tokens))
    assert matrix.text("said").endswith(" MACs")
    matrix.page.click("button[type=reset]")
    matrix.page.wait_for_function("document.getElementById('number-0').value === '1024'")
    agrees(matrix, SPEC, 0, {"D": 1024}, 1024)


def test_sliders_of_layers(layers: Opened) -> None:
    for position in (1, 30, 50):
        tokens = layers.move(0, position)
        for number, spec in enumerate(LAYERS):
            agrees(layers, spec, number, {}, tokens)


def test_what_a_link_leads_to_is_not_behind_the_sliders(layers: Opened) -> None:
    layers.page.click("a[href='#s1']")
    heading, panel = (layers.page.locator(one).bounding_box() for one in ("#s1-title", "#sizes"))
    assert panel["y"] == 0
    assert heading["y"] >= panel["height"]


def test_typed_numbers(matrix: Opened) -> None:
    matrix.page.fill("#number-0", "6084")
    matrix.page.fill("#number-1", "17")
    agrees(matrix, SPEC, 0, {"D": 6084}, 17)
    matrix.page.fill("#number-0", "1000")
    assert matrix.page.is_visible("#s0-problems")
    assert matrix.text("s0-problems") == "needs: sqrt(D) is an integer"
    assert matrix.text("s0-m1") == "–"
    assert "do not fit" in matrix.text("said")
    matrix.page.fill("#number-0", "1024")
    assert not matrix.page.is_visible("#s0-problems")
    agrees(matrix, SPEC, 0, {"D": 1024}, 17)
    matrix.page.fill("#number-0", "0")
    assert matrix.page.evaluate("document.getElementById('number-0').validity.customError")
    agrees(matrix, SPEC, 0, {"D": 1024}, 17)


def test_the_keyboard_moves_everything(matrix: Opened) -> None:
    page = matrix.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "slider-0"
    before = matrix.number("s0-m0")
    page.keyboard.press("ArrowRight")
    assert matrix.number("s0-m0") > before
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached >= {"number-0", "slider-1", "number-1", "BUTTON", "curve-measure", "curve-over", "SUMMARY"}


def test_curves(matrix: Opened) -> None:
    page = matrix.page
    for measure in ("memory.bytes_moved", "rank"):
        for over, name in enumerate(("D", "T")):
            page.select_option("#curve-measure", measure)
            page.select_option("#curve-over", str(over))
            rows = page.evaluate("[...document.querySelectorAll('#curve-table tbody tr')].map((row) => "
                                 "[...row.children].map((cell) => cell.textContent.replaceAll(',', '')))")  # fmt: skip
            assert matrix.text("chart-title").endswith(f" over {name}")
            assert len(rows) == len(page.evaluate(f"SLIDERS[{over}].positions"))
            x, y = map(int, rows[5][:2])
            values = {"D": x} if name == "D" else {}
            wanted = expected(SPEC, values, x if name == "T" else 1024)
            assert wanted is not None
            assert pick(wanted, measure)["value"] == y
            assert "NaN" not in page.inner_html("#chart")


WIDE = """() => [...document.querySelectorAll('body *')].filter((e) =>
  !e.closest('.scroll, pre, svg, .skip') && e.getBoundingClientRect().right > 361).map((e) => e.outerHTML)"""
UNFOLD = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"


def test_phone_width_needs_no_sideways_scrolling(phone: Opened) -> None:
    phone.page.evaluate(UNFOLD)
    assert phone.page.evaluate("document.scrollingElement.scrollWidth") <= 360
    wide = phone.page.evaluate(WIDE)
    assert wide == []


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLOURS = """() => {
  const opaque = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
  return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() &&
    [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
    const style = getComputedStyle(e), svg = e.closest('svg');
    const text = e.tagName + ': ' + e.textContent.slice(0, 40);
    return [svg ? style.fill : style.color, opaque(svg ? svg.parentElement : e), text];
  });
}"""


def test_contrast(themed: Opened) -> None:
    themed.page.evaluate(UNFOLD)
    found = themed.page.evaluate(COLOURS)
    assert len(found) > 200
    for ink, paper, text in {tuple(one) for one in found}:
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text}: {ink} on {paper}"


NAMELESS = """() => {
  const named = (e) => ['aria-label', 'aria-labelledby'].some((key) => e.getAttribute(key)) || e.labels?.length;
  const ids = new Set([...document.querySelectorAll('[id]')].map((e) => e.id));
  return [
    ...[...document.querySelectorAll('input, select')].filter((e) => !named(e)),
    ...[...document.querySelectorAll('table')].filter((e) => !e.caption || !e.caption.textContent.trim()),
    ...[...document.querySelectorAll('th')].filter((e) => !e.scope || !e.textContent.trim()),
    ...[...document.querySelectorAll('[role=region], section')].filter((e) => !named(e)),
    ...[...document.querySelectorAll('svg[role=img]')].filter((e) => !e.querySelector('title').textContent),
    ...[...document.querySelectorAll('[aria-labelledby]')].filter((e) => !ids.has(e.getAttribute('aria-labelledby'))),
  ].map((e) => e.outerHTML.slice(0, 120));
}"""


def test_everything_has_a_name(phone: Opened) -> None:
    assert phone.page.evaluate(NAMELESS) == []
    ids = phone.page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = phone.page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_without_javascript_the_numbers_of_the_start_are_there(browser: Any, files: dict[str, Path]) -> None:
    still = Opened(browser, files["matrix"], java_script_enabled=False)
    wanted = expected(SPEC, {}, 1024)
    assert wanted is not None
    assert still.page.locator("#s0-m1").text_content() == f"{wanted['macs']['value']:,}"
    assert "Without JavaScript" in (still.page.locator("noscript").text_content() or "")
    still.context.close()


@pytest.mark.slow
def test_several_with_one_symbol(browser: Any, tmp_path: Path) -> None:
    other = mlbtc.load(SPECS / "tied.yaml")
    file = tmp_path / "two.html"
    file.write_text(render_page([SPEC, other], [Sweep("D", (64, 256, 576, 1024))]))
    both = Opened(browser, file)
    for position in (0, 2):
        size = both.move(0, position)
        agrees(both, SPEC, 0, {"D": size}, 1024)
        agrees(both, other, 1, {"D": size}, 1024)
    # Both are D x D, so one dense matrix is beside them.
    assert both.page.locator("#legend li").all_inner_texts() == ["local-and-global", "symmetric", "dense"]
    both.context.close()
    assert both.problems == []
