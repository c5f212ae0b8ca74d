"""Take the picture of a page that README.md shows: `python docs/screenshot.py`.

It needs Chromium and `pip install 'mlbtc[browser]'`. The picture has few colours, so a palette makes it small.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import mlbtc
from mlbtc.analysis.sweep import parse_sweep
from mlbtc.page import render_page

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "page.png"
SPECS = ("local_and_global", "tied")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = {"width": 960, "height": 1130}
MOST_BYTES = 150_000


def main() -> None:
    """Write docs/page.png."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    specs = [mlbtc.load(ROOT / "examples" / "specs" / f"{name}.yaml") for name in SPECS]
    text = render_page(specs, [parse_sweep("D=256:4096:4x")])
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(text, encoding="utf-8")
        program = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light", offline=True)
        page.goto(file.as_uri())
        taken = page.screenshot()
        browser.close()
    image = Image.open(io.BytesIO(taken)).convert("RGB").quantize(64)
    image.save(PICTURE, optimize=True)
    if PICTURE.stat().st_size > MOST_BYTES:
        sys.exit(f"{PICTURE} has {PICTURE.stat().st_size} bytes, more than {MOST_BYTES}")


if __name__ == "__main__":
    main()
