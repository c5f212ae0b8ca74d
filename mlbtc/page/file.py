"""What every page is: one file that ends in .html, written whole or not at all, in the one style of mlbtc."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from markupsafe import Markup

from mlbtc.codegen.loading import write_atomically
from mlbtc.errors import AnalysisError, MlbtcError

SUFFIXES = (".html", ".htm")


def check_page_path(path: Path, error: type[MlbtcError] = AnalysisError) -> None:
    """Check that a page can be written, before the work that is for nothing otherwise.

    Args:
        path: the file that the page will be.
        error: the class of errors of the caller's stage.

    Raises:
        MlbtcError: of the class `error`; the name does not end in .html, it is a folder, or there is no such folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise error(f"the name of a page ends in .html; found {str(path)!r}")
    if path.is_dir():
        raise error(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise error(f"cannot write {path}: there is no folder {path.parent}")


def write_page(path: Path, text: str, error: type[MlbtcError] = AnalysisError) -> None:
    """Write a page, all of it or nothing.

    Raises:
        MlbtcError: of the class `error`; the file cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as failure:
        raise error(f"cannot write {path}: {failure.strerror or failure}") from None


def base_style() -> Markup:
    """Return the style that pages share: colours for light and dark, text, tables, focus."""
    return Markup(asset("base.css"))


def asset(name: str) -> str:
    """Return the text of a style or script of pages."""
    return (resources.files("mlbtc.page") / "templates" / name).read_text("utf-8")
