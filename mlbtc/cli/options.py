"""What several commands share: reading a spec file and giving values to its symbols."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from mlbtc.errors import SpecError, nearest
from mlbtc.spec import MLBTC, AttentionSpec, load

_ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*([0-9]{1,12})\s*")


def load_with(path: str, assignments: list[str] | None) -> MLBTC | AttentionSpec:
    """Read a spec file and apply `--set NAME=NUMBER` options as defaults of its symbols.

    Raises:
        SpecError: the file or an assignment is wrong.
    """
    spec = load(path)
    values = dict(_parse(text) for text in assignments or [])
    if not values:
        return spec
    symbols = spec.symbols if isinstance(spec, MLBTC) else ()
    for name in values:
        if name not in symbols:
            hint = nearest(name, symbols) if symbols else "it has no symbols"
            raise SpecError(f"--set {name}: {path} has no symbol {name!r}; {hint}")
    assert isinstance(spec, MLBTC)
    return spec.with_defaults(values)


def load_several(paths: list[str], assignments: list[str] | None) -> list[MLBTC | AttentionSpec]:
    """Read spec files and apply each `--set NAME=NUMBER` to those that have the symbol.

    Raises:
        SpecError: a file or an assignment is wrong, or no file has the symbol.
    """
    specs, values = [load(path) for path in paths], dict(_parse(text) for text in assignments or [])
    known = [spec.symbols if isinstance(spec, MLBTC) else () for spec in specs]
    symbols = tuple(sorted({name for names in known for name in names}))
    for name in values:
        if name not in symbols:
            hint = nearest(name, symbols) if symbols else "none has symbols"
            raise SpecError(f"--set {name}: none of the {len(paths)} files has a symbol {name!r}; {hint}")
    chosen = [{name: value for name, value in values.items() if name in names} for names in known]
    return [
        spec.with_defaults(some) if some and isinstance(spec, MLBTC) else spec
        for spec, some in zip(specs, chosen, strict=True)
    ]


def teach(text: str | None) -> str:
    """Return a help text whose indented paragraphs keep their lines (click would join them)."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(f"\b\n{part}" if part.startswith("    ") else part for part in paragraphs)


def words(*known: str) -> Callable[[str], list[str]]:
    """Return what completes an argument in a shell: the known words, and file names where none of them fits."""
    # Typer finds what to pass by the name of the parameter.
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def _parse(text: str) -> tuple[str, int]:
    match = _ASSIGNMENT.fullmatch(text)
    if match is None:
        raise SpecError(f"--set takes NAME=NUMBER such as D=2048, found {text!r}")
    return match.group(1), int(match.group(2))
