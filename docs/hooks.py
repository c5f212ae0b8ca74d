"""Hooks of MkDocs: docstrings of linked folders are read, files outside docs/ come along, and reports are listed."""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<=\]\()(?P<target>[^)#\s:]+)(?=[)#])")
OUTSIDE = "files"
"""The folder of the site that holds files from outside docs/, under their paths in the repository."""
SHOWN = {".py": "python", ".toml": "toml", ".yaml": "yaml"}
"""Kinds of files that become a page; others are copied."""
REPORTS = "<!-- reports -->"
SOURCE = tempfile.TemporaryDirectory(prefix="mlbtc-docs-")


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let docstrings be read from a copy: what reads them does not follow the links in mlbtc/."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mlbtc", Path(SOURCE.name) / "mlbtc", ignore=ignored, dirs_exist_ok=True)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [SOURCE.name]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that pages link to, and those that such pages link to."""
    waiting = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    while waiting:
        uri, text = waiting.pop()
        for target in LINK.findall(text):
            path = repository_path(uri, target)
            if outside(path) and files.get_file_from_path(site_path(path)) is None:
                added = brought_along(path, config)
                files.append(added)
                waiting += [(added.src_uri, added.content_string)] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ at what was brought along, and list the reports where a page asks for it."""
    uri = page.file.src_uri
    if uri.startswith(f"{OUTSIDE}/") and not repository_path(uri, "").endswith(".md"):
        return markdown
    if REPORTS in markdown:
        markdown = markdown.replace(REPORTS, reports(files))
    return LINK.sub(lambda match: site_link(uri, match["target"]), markdown)


def repository_path(uri: str, target: str) -> str:
    """Return the path in the repository of what a page of the site links to; of the page itself without a target."""
    own = uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"docs/{uri}"
    if not target:
        return own.removesuffix(".md") if Path(own).with_suffix("").suffix in SHOWN else own
    return posixpath.normpath(posixpath.join(posixpath.dirname(own), target))


def outside(path: str) -> bool:
    """Return whether a path of the repository is a file outside docs/; what is none is left for MkDocs to refuse."""
    return not path.startswith(("docs/", "..")) and (ROOT / path).is_file()


def site_path(path: str) -> str:
    """Return the source path, as MkDocs has it, of a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{OUTSIDE}/{path}.md" if Path(path).suffix in SHOWN else f"{OUTSIDE}/{path}"


def site_link(uri: str, target: str) -> str:
    """Return a link as it is in the site."""
    path = repository_path(uri, target)
    if not (outside(path) or (uri.startswith(f"{OUTSIDE}/") and path.startswith("docs/"))):
        return target
    return posixpath.relpath(site_path(path), posixpath.dirname(uri) or ".")


def brought_along(path: str, config: MkDocsConfig) -> File:
    """Return a file from outside docs/ as MkDocs takes it: code as a page, anything else as it is."""
    source, uri = ROOT / path, site_path(path)
    if source.suffix not in SHOWN:
        return File.generated(config, uri, abs_src_path=str(source))
    text = source.read_text(encoding="utf-8")
    return File.generated(config, uri, content=f"# {path}\n\n````{SHOWN[source.suffix]}\n{text}````\n")


def reports(files: Files) -> str:
    """Return a list of the reports in docs/results, each with its title."""
    found = [file for file in files.documentation_pages() if re.fullmatch(r"results/[^/]+/report\.md", file.src_uri)]
    lines = []
    for file in sorted(found, key=lambda file: file.src_uri):
        title = file.content_string.partition("\n")[0].removeprefix("# ")
        runs = file.src_uri.replace("report.md", "runs.csv")
        rows = f" ([every run as a row]({runs}))" if files.get_file_from_path(runs) else ""
        lines.append(f"- [{title}]({file.src_uri}){rows}")
    return "\n".join(lines) or "There is no report yet."
