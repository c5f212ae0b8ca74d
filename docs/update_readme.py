"""Fill the generated parts of README.md and docs/benchmarks.md: what code prints, the files shown, tables of records.

Run `python docs/update_readme.py` to write them, `--check` to fail where they are out of date.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import mlbtc

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"

EXAMPLE = """\
import mlbtc, torch
from mlbtc import MLBTC, Level

spec = MLBTC(
    shape=(1024, 1024),
    levels=[
        Level(blocks=1, rank=32),  # low rank, everywhere
        Level.einsum("b a c s, c b s d -> (b a) (c d)", sizes={"b": 32, "c": 32, "s": 2}),  # BTT
    ],
)
print(mlbtc.analyze(spec).to_markdown())
layer = mlbtc.compile(spec)  # an nn.Module
y = layer(torch.randn(8, 1024))
"""

LINEAR = """\
import torch
from torch import nn
from mlbtc import StructuredLinear

mlp = nn.Sequential(StructuredLinear(1024, 4096, "btt", rank=2), nn.GELU(), StructuredLinear(4096, 1024, "btt", rank=2))
y = mlp(torch.randn(8, 1024))
print(sum(p.numel() for p in mlp.parameters()))
"""

ATTENTION = """\
import mlbtc, torch
from mlbtc import AttentionSpec

layer = mlbtc.compile(AttentionSpec.mlr(width=512, heads=8, ranks=(48, 16), context=1024))
y = layer(torch.randn(2, 1024, 512))  # (B, T, width) -> the same, any T
print(mlbtc.analyze(layer.spec, batch=1024).key_cache)
"""


def run(code: str) -> tuple[str, dict[str, object]]:
    """Run a snippet and return what it prints and its names."""
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)
    return printed.getvalue(), names


def parts() -> dict[str, str]:
    """Return the text of every generated part."""
    report, names = run(EXAMPLE)
    source = mlbtc.generate(names["spec"])  # type: ignore[arg-type]
    product = source[source.index("    def _product") : source.index("    def to_dense")]
    symbolic = mlbtc.analyze(mlbtc.load(ROOT / "examples/specs/symbolic_mlr.yaml")).to_markdown()
    cache, _ = run(ATTENTION)
    parameters, _ = run(LINEAR)
    # A heading inside a part would become one of the README's own.
    table = re.sub(r"^## (.*)$", r"**\1**", report, flags=re.M).strip()
    return {
        "example": f"```python\n{EXAMPLE}```\n\nIt prints:\n\n{table}",
        "source": f"```python\n{_dedent(product)}```",
        "spec": f"```yaml\n{(ROOT / 'examples/specs/local_and_global.yaml').read_text()}```",
        "symbolic": re.sub(r"^## (.*)$", r"**\1**", symbolic, flags=re.M).strip(),
        "results": results(),
        "linear": f"```python\n{LINEAR}```\n\nIt prints the number of parameters; two dense layers have 8,393,728:\n\n"
        f"```text\n{parameters}```",
        "attention": f"```python\n{ATTENTION}```\n\nIt prints the elements of the key cache, of which standard "
        f"attention has 524288:\n\n```text\n{cache}```",
    }


SUITES = {
    "linear": ("Linear layers, against nn.Linear with the same matrix", "mlbtc auto"),
    "attention": ("Attention, against scaled_dot_product_attention", "mlbtc auto"),
    "decode": ("One more token over a full cache, against scaled_dot_product_attention", "mlbtc cache"),
}

LINEAR_TOKENS = (1, 64, 4096)


def results() -> str:
    """Return a table per suite of benchmarks/results: how many times faster than the rival, medians of one run."""
    found = []
    for suite, (title, ours) in SUITES.items():
        path = ROOT / "benchmarks" / "results" / f"{suite}.json"
        if path.is_file():
            record = json.loads(path.read_text())
            found.append(_result_table(record, title, ours))
            if suite == "linear":
                found.append(_slower_cells(record, ours))
    return "\n\n".join(found)


def _result_table(record: dict[str, Any], title: str, ours: str) -> str:
    machine, settings = record["machine"], record["settings"]
    ratios: dict[str, dict[str, str]] = {}
    # Of a record with several widths and numbers of threads the table shows 1024 and the largest. Where sizes are many,
    # it shows some numbers of tokens, or training only.
    shown = [
        result
        for result in record["results"]
        if result["sizes"].get("threads", settings["threads"]) == settings["threads"]
        and result["sizes"].get("width", 1024) == 1024
    ]
    if len({(x["mode"], x["sizes"]["tokens"]) for x in shown}) > 8:
        if record["suite"] == "linear":
            shown = [result for result in shown if result["sizes"]["tokens"] in LINEAR_TOKENS]
        else:
            shown = [result for result in shown if result["mode"] != "forward"]
    for result in shown:
        timings = {timing["name"]: timing for timing in result["timings"]}
        column = f"{result['mode']}, {result['sizes']['tokens']} tokens"
        if ours in timings:
            ratios.setdefault(result["case"], {})[column] = f"{1 / timings[ours]['ratio']:.1f}"
    columns = list(dict.fromkeys(column for row in ratios.values() for column in row))
    lines = [["times faster", *columns], ["---", *("---:" for _ in columns)]]
    lines += [[case.replace("|", "\\|"), *(row.get(column, "") for column in columns)] for case, row in ratios.items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    how = f"{machine['cpu']}, {settings['threads']} threads, {settings['dtype']}, torch {machine['torch']}"
    return f"**{title}** ({how}):\n\n{table}"


def _slower_cells(record: dict[str, Any], ours: str) -> str:
    """Return for each claimed rival in how many cells of a record we are slower, and how much in which one most."""
    sentences = []
    for rival in ("nn.Linear", "torch.einsum"):
        ratios = []
        for result in record["results"]:
            seconds = {timing["name"]: timing["seconds"] for timing in result["timings"]}
            if ours in seconds and rival in seconds:
                sizes = ", ".join(f"{name} {size}" for name, size in result["sizes"].items())
                where = f"{result['case']}, {sizes}, {result['mode']}"
                ratios.append((seconds[ours] / seconds[rival], where))
        slower = [pair for pair in ratios if pair[0] > 1]
        most = f" ({max(slower)[0]:.2f} times at {max(slower)[1]})" if slower else ""
        sentences.append(f"slower than {rival} in {len(slower)} of {len(ratios)}{most}")
    widths = sorted({result["sizes"]["width"] for result in record["results"]})
    tokens = sorted({result["sizes"]["tokens"] for result in record["results"]})
    return (
        f"Over all cells of the record (widths {widths[0]} to {widths[-1]}, {tokens[0]} to {tokens[-1]} tokens) it is "
        f"{sentences[0]}, and {sentences[1]}."
    )


def _dedent(text: str) -> str:
    return "".join(f"{line[4:]}\n" for line in text.rstrip().splitlines())


def fill(text: str, made: dict[str, str] | None = None) -> str:
    """Return a text with its generated parts filled in, those of the README if nothing else is said."""
    for name, body in (parts() if made is None else made).items():
        pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.S)
        if not pattern.search(text):
            raise SystemExit(f"there is no part called {name!r}")
        text = pattern.sub(lambda match, body=body: f"{match.group(1)}{body}\n{match.group(2)}", text)
    return text


def main() -> None:
    """Write or check both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where README.md is out of date")
    wanted = parser.parse_args()
    for path, made in ((README, None), (BENCHMARKS, {"results": results()})):
        text = path.read_text()
        filled = fill(text, made)
        if wanted.check and filled != text:
            sys.exit(f"{path.relative_to(ROOT)} is out of date: run python docs/update_readme.py")
        if not wanted.check:
            path.write_text(filled)


if __name__ == "__main__":
    main()
