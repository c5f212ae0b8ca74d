"""Indexes: a YAML file that holds several specs by name, as `mlbtc generate` writes it; `INDEX.yaml:NAME` is one."""

from __future__ import annotations

from typing import Any

from mlbtc.errors import SpecError, nearest, shown
from mlbtc.spec.nodes import Document
from mlbtc.spec.origin import Origin

KEY = "variants"


def split_address(path: str) -> tuple[str, str | None]:
    """Return the file and the name in `FILE.yaml:NAME`, or the path and None."""
    file, colon, name = path.rpartition(":")
    return (file, name) if colon and name and file.endswith((".yaml", ".yml")) else (path, None)


def is_index(value: Any) -> bool:
    """Return whether the content of a file is an index."""
    return isinstance(value, dict) and KEY in value


def names_of(document: Document) -> list[str]:
    """Return the names of the specs in an index.

    Raises:
        SpecError: it has none.
    """
    assert isinstance(document.value, dict)
    entries = document.value[KEY]
    if not isinstance(entries, dict) or not entries:
        raise SpecError(f"{document.origin.where(KEY)}: an index holds specs by name, found {shown(entries)}")
    return list(map(str, entries))


def entry_of(document: Document, name: str) -> Document:
    """Return the spec of that name in an index, as if it stood in a file of its own; lines are those of the index.

    Raises:
        SpecError: the file is no index, or has no such spec.
    """
    value, origin = document.value, document.origin
    entries = value.get(KEY) if isinstance(value, dict) else None
    if not isinstance(entries, dict):
        raise SpecError(f"{origin.where()}: {name!r} is looked for in an index with the key {KEY}, found none")
    if name not in entries:
        raise SpecError(f"{origin.where(KEY)}: it has no {shown(name)}; {nearest(name, list(entries))}")
    path = (KEY, name, "spec")
    entry = entries[name]
    if not isinstance(entry, dict) or "spec" not in entry:
        raise SpecError(f"{origin.where(KEY, name)}: an entry has the key spec, found {shown(entry)}")
    lines = {key[len(path) :]: line for key, line in origin.lines.items() if key[: len(path)] == path}
    return Document(entry["spec"], Origin(origin.source, lines))


def refuse_index(value: dict[str, Any], origin: Origin) -> None:
    """Refuse an index where a spec is wanted, and say how to name one of its specs."""
    names = value[KEY] if isinstance(value[KEY], dict) else {}
    example = next(iter(names), "NAME")
    raise SpecError(f"{origin.where(KEY)}: an index of specs; name one of them, {origin.source}:{example}")
