"""YAML text to plain values with the line of every key; nothing but scalars, lists and mappings gets through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from mlbtc.errors import SpecError
from mlbtc.spec.origin import Origin, Path, render

MAX_BYTES = 1 << 20
MAX_DEPTH = 12
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = {"", "~", "null", "Null", "NULL"}

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True, slots=True)
class Document:
    """The value of a file and where its keys stand."""

    value: Value
    origin: Origin


def read_document(text: str, source: str) -> Document:
    """Parse one YAML document.

    Raises:
        SpecError: the text is not YAML, or uses tags, anchors, aliases, several documents, repeated keys, or absurd
            depth or size.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise SpecError(f"{source}: a spec file has at most {MAX_BYTES} bytes, found {len(text)} characters")
    lines: dict[Path, int] = {(): 1}
    try:
        text.encode()  # half a surrogate pair is no text, and a reader in C says so in its own words
        _refuse_features(text, source)
        node = yaml.compose(text, Loader=_LOADER)
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n") + 1
        code = ord(text[error.start])
        raise SpecError(f"{source}:{line}: not valid YAML: U+{code:04X} is no character of its own") from None
    except yaml.MarkedYAMLError as error:
        raise SpecError(_describe(error, source)) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise SpecError(f"{source}:{line}: not valid YAML: {error.reason} (U+{code:04X})") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: not a YAML file: {' '.join(str(error).split())}") from None
    if node is None:
        raise SpecError(f"{source}:1: the file is empty; a spec has the keys shape and levels, or the key attention")
    value = _convert(node, (), lines, source)
    return Document(value, Origin(source, lines))


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _describe(error: yaml.MarkedYAMLError, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    column = f" (column {mark.column + 1})" if mark else ""
    return f"{source}{line}: not valid YAML: {error.problem or error.context}{column}"


def _refuse_features(text: str, source: str) -> None:
    """Walk the events before anything is built: aliases, tags and depth are refused here."""
    depth = documents = 0
    event: Any
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise SpecError(f"{source}:{line}: a spec file holds one document, found a second one behind '---'")
        if isinstance(event, yaml.AliasEvent):
            raise SpecError(f"{source}:{line}: YAML aliases (*{event.anchor}) are not part of the grammar: write the "
                            "value out")  # fmt: skip
        if getattr(event, "anchor", None):
            raise SpecError(f"{source}:{line}: YAML anchors (&{event.anchor}) are not part of the grammar")
        if getattr(event, "tag", None):
            raise SpecError(f"{source}:{line}: YAML tags ({_short(event.tag)}) are not part of the grammar: plain "
                            "values only")  # fmt: skip
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SpecError(f"{source}:{line}: lists and mappings are nested deeper than {MAX_DEPTH}")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _convert(node: Any, path: Path, lines: dict[Path, int], source: str) -> Value:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(child, (*path, i), lines, source) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _convert_mapping(node, path, lines, source)
    return _scalar(node, path, source)


def _convert_mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int], source: str) -> dict[str, Value]:
    result: dict[str, Value] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise SpecError(f"{source}:{line}: a key must be a word, found a list or mapping")
        key = key_node.value
        if key in result:
            raise SpecError(f"{source}:{line}: key {_short(key)!r} stands twice here")
        lines[(*path, key)] = line
        result[key] = _convert(value_node, (*path, key), lines, source)
    return result


def plain_value(text: str) -> Value:
    """Return what an unquoted scalar stands for."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= 40 and _FLOAT.fullmatch(text):
        return float(text)
    return text


def _scalar(node: Any, path: Path, source: str) -> Value:
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    if len(text) > 30 and text.lstrip("+-").isdigit():
        where = f"{source}:{node.start_mark.line + 1}: {render(path)}"
        raise SpecError(f"{where}: a number of {len(text)} digits is out of range")
    return plain_value(text)
