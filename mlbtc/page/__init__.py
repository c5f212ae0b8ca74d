"""One self-contained HTML page for specs: graph, steps, source, and costs that a browser recomputes as sizes move."""

from mlbtc.page.build import render_page
from mlbtc.page.file import check_page_path, write_page

__all__ = ["check_page_path", "render_page", "write_page"]
