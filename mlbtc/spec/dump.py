"""Specs as YAML text, the inverse of `mlbtc.spec.files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from mlbtc.spec.nodes import plain_value
from mlbtc.spec.permutation import Permutation
from mlbtc.spec.place import SIDES
from mlbtc.spec.sizes import Size

if TYPE_CHECKING:
    from mlbtc.spec.attention import AttentionSpec
    from mlbtc.spec.language import MLBTC
    from mlbtc.spec.level import Level


class _Dumper(yaml.SafeDumper):
    """Writes lists and level entries in one line each."""


def _flow(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    plain = all(item is None or isinstance(item, int | str) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=plain)


def _quoted(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    """Quote what our own reader would take for a number or a boolean; PyYAML quotes the rest."""
    style = None if plain_value(value) == value else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(list, _flow)
_Dumper.add_representer(str, _quoted)


def _text(document: dict[str, Any], width: int) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=width, default_flow_style=False)


def document_to_yaml(document: dict[str, Any]) -> str:
    """Return plain data as YAML that our own reader reads back to equal data."""
    return _text(document, 10**6)


def _size(size: Size) -> int | str:
    return size if isinstance(size, int) else str(size)


def _side(permutation: Permutation) -> list[int] | str | None:
    return list(permutation) if isinstance(permutation, tuple) else permutation


def _level(level: Level) -> dict[str, Any]:
    short = level.shorthand
    entry: dict[str, Any]
    if short is not None and not any(level.names):
        entry = {key: _size(size) for key, size in short.items()}
    else:
        entry = {"einsum": str(level.expression), "sizes": {name: _size(size) for name, size in level.sizes}}
    if any(level.names):
        entry["factors"] = list(level.names)
    if level.scale != 1:
        entry["scale"] = level.scale
    if level.rows is not None or level.columns is not None:
        sides = {"rows": _side(level.rows), "columns": _side(level.columns)}
        entry["permutation"] = {key: side for key, side in sides.items() if side is not None}
    if level.at is not None:
        bounds = zip(SIDES, level.at.sides, strict=True)
        entry["at"] = {key: [_size(bound) for bound in side] for key, side in bounds if side is not None}
    return entry


def spec_to_yaml(spec: MLBTC, width: int) -> str:
    """Return a matrix spec as YAML in lines of about `width` characters."""
    document: dict[str, Any] = {"name": spec.name, "shape": [_size(size) for size in spec.shape]}
    if spec.defaults:
        document["symbols"] = dict(spec.defaults)
    document["levels"] = [_level(level) for level in spec.levels]
    return _text(document, width)


def attention_to_yaml(spec: AttentionSpec, width: int) -> str:
    """Return an attention spec as YAML in lines of about `width` characters."""
    return _text(attention_document(spec), width)


def attention_document(spec: AttentionSpec) -> dict[str, Any]:
    """Return an attention spec as the plain data of its file."""
    entry: dict[str, Any] = {key: getattr(spec, key) for key in ("variant", "width", "heads", "context")}
    entry |= _own(spec)
    if spec.score is not None:
        entry["score"] = _score(spec.score)
    if spec.levels:
        entry["levels"] = [{"block_size": block, "score": _score(score)} for block, score in spec.levels]
    if spec.groups:
        entry["groups"] = [_group(group) for group in spec.groups]
        return {"name": spec.name, "attention": entry | {"causal": spec.causal}}
    entry |= {"causal": spec.causal, "qk_norm": spec.qk_norm, **_options(spec)}
    return {"name": spec.name, "attention": entry}


def _own(spec: AttentionSpec) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in spec.own_values().items()}


def _options(spec: AttentionSpec) -> dict[str, Any]:
    options = spec.options()
    if spec.rope is not None:
        options["rope"] = {"base": int(spec.rope) if spec.rope == int(spec.rope) else spec.rope}
    return options


def _group(group: AttentionSpec) -> dict[str, Any]:
    head = {"heads": group.heads, "variant": group.variant}
    return {**head, **_own(group), "qk_norm": group.qk_norm, **_options(group)}


def _score(score: MLBTC) -> dict[str, Any]:
    return {"levels": [_level(level) for level in score.levels]}
