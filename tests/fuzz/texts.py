"""Texts for the reader of spec files: values written as YAML, broken as values and as text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.fuzz.values import ODD, WORDS, spec_file

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples" / "specs").glob("*.yaml"))
KEYS = [
    "shape", "levels", "symbols", "name", "blocks", "rank", "scale", "einsum", "sizes", "family", "permutation",
    "rows", "columns", "attention", "variant", "width", "heads", "context", "ranks", "block_sizes", "causal",
    "qk_norm", "window", "published", "score", "groups", "block_size", "rope", "base", "rms_cap", "joint_norm",
    "divide_by_depth", "at", "factors", "a_shape", "b_shape", "n", "rnak", "<<", "", "Blocks",
    "é", "__class__", "origin",
]  # fmt: skip
SNIPPETS = [
    "&a ", "*a", "<<: ", "<<: *a\n", "!!python/object:os.system ", "!!int ", "!x ", "!!binary ", "---\n",
    "...\n", "%YAML 1.1\n", "# ", "? ", ": ", "- ", "|\n", ">\n", "'", '"', "{", "}", "[", "]", "\t", "\x00",
    "\x07", "\x1b[31m", "\ufeff", "\u2028", "\x85", "\r", "\r\n", "\ud800", "\U0001f600", "é", "->", "(", ")",
    ",", "\\", "@", "`", "9" * 40, "1e400", "-", "+", "  ",
]  # fmt: skip


def text_of(seed: int, number: int) -> str:
    """Return text `number` of a seed, the same on every machine."""
    rng = Random(f"{seed}:{number}")
    if rng.random() < 0.12:
        return broken_text(rng, rng.choice(EXAMPLES).read_text("utf-8"), rng.randint(1, 4))
    value = spec_file(rng) if rng.random() < 0.8 else yaml.safe_load(rng.choice(EXAMPLES).read_text("utf-8"))
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 4])):
        value = broken_value(rng, value)
    text = written(rng, value)
    return broken_text(rng, text, rng.randint(1, 3)) if rng.random() < 0.15 else text


def written(rng: Random, value: Any) -> str:
    """Write values as block YAML, as one line, or as JSON."""
    style = rng.random()
    if style < 0.2:
        return json.dumps(value, ensure_ascii=rng.random() < 0.5)
    flow = None if style < 0.6 else style < 0.8
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Writes a value that stands twice twice, instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


Slot = tuple[Any, Any]
"""A list or mapping and a position in it."""


def slots(value: Any) -> list[Slot]:
    """Return every place in nested values."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [slot for key in keys for slot in [(value, key), *slots(value[key])]]


def broken_value(rng: Random, value: Any) -> Any:
    """Return a copy with one place replaced, removed, renamed, repeated, moved or nested."""
    value = copy.deepcopy(value)
    places = slots(value)
    if not places:
        return rng.choice(ODD)
    parent, key = rng.choice(places)
    rng.choice([replace, replace, replace, remove, rename, add, swap, nest, edit, edit])(rng, parent, key, places)
    return value


def replace(rng: Random, parent: Any, key: Any, _: list[Slot]) -> None:
    parent[key] = copy.deepcopy(rng.choice(ODD))


def remove(_: Random, parent: Any, key: Any, __: list[Slot]) -> None:
    del parent[key]


def rename(rng: Random, parent: Any, key: Any, _: list[Slot]) -> None:
    if isinstance(parent, dict):
        new = rng.choice([rng.choice(KEYS), misspelt(rng, str(key)), rng.choice([1, 0.5, True, None])])
        parent[new] = parent.pop(key)


def add(rng: Random, parent: Any, key: Any, _: list[Slot]) -> None:
    if isinstance(parent, dict):
        parent[rng.choice(KEYS + WORDS)] = copy.deepcopy(rng.choice([*ODD, parent[key]]))
    else:
        parent += [copy.deepcopy(parent[key])] * rng.choice([1, 1, 2, 300])


def swap(rng: Random, parent: Any, key: Any, places: list[Slot]) -> None:
    other, place = rng.choice(places)
    # Copies: a value that held itself could not be written.
    parent[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(parent[key])


def nest(rng: Random, parent: Any, key: Any, _: list[Slot]) -> None:
    for _depth in range(rng.choice([1, 1, 2, 20])):
        parent[key] = [parent[key]] if rng.random() < 0.7 else {rng.choice(KEYS): parent[key]}


def edit(rng: Random, parent: Any, key: Any, _: list[Slot]) -> None:
    """Change a number a little, or a text by a few characters."""
    found = parent[key]
    if isinstance(found, str):
        parent[key] = broken_text(rng, found, rng.randint(1, 3))
    elif isinstance(found, int) and not isinstance(found, bool):
        parent[key] = rng.choice([found + 1, found - 1, found * 2, -found, found * 10**9, f"{found}*D", f"D + {found}"])


def misspelt(rng: Random, word: str) -> str:
    if not word:
        return "x"
    at = rng.randrange(len(word))
    return rng.choice([word[:at] + word[at + 1 :], word[:at] + word[at:][:1] + word[at:], word.upper(), word + "_"])


def broken_text(rng: Random, text: str, times: int) -> str:
    """Return the text with a few pieces deleted, repeated, moved or inserted."""
    edits: list[Callable[[Random, str], str]] = [_cut, _repeat, _insert, _insert, _move_line, _word]
    for _ in range(times):
        text = rng.choice(edits)(rng, text)
    # What a file on disk cannot hold never reaches the reader.
    return text.encode("utf-8", "ignore").decode("utf-8") if rng.random() < 0.9 else text


def _span(rng: Random, text: str) -> tuple[int, int]:
    start = rng.randint(0, len(text))
    return start, min(len(text), start + rng.choice([1, 1, 2, 5, 30]))


def _cut(rng: Random, text: str) -> str:
    start, end = _span(rng, text)
    return text[:start] + text[end:]


def _repeat(rng: Random, text: str) -> str:
    start, end = _span(rng, text)
    return text[:start] + text[start:end] * rng.choice([2, 2, 3, 50, 2000]) + text[end:]


def _insert(rng: Random, text: str) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice([*SNIPPETS, *WORDS, *KEYS]) + text[at:]


def _move_line(rng: Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    if lines:
        lines.insert(rng.randint(0, len(lines) - 1), lines.pop(rng.randrange(len(lines))))
    return "".join(lines)


def _word(rng: Random, text: str) -> str:
    words = text.split(" ")
    words[rng.randrange(len(words))] = rng.choice([*WORDS, *KEYS, *map(str, ODD)])
    return " ".join(words)
