"""The shape of a spec file as pydantic models: which keys there are and of which kind."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mlbtc.errors import SpecError, nearest, shown
from mlbtc.spec.nodes import Value
from mlbtc.spec.options import ROPE_BASE
from mlbtc.spec.origin import Origin, Path

SizeEntry = int | str


class Entry(BaseModel):
    """Base of all file entries: unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PermutationEntry(Entry):
    """`permutation: {rows: [...], columns: bit_reversal}`."""

    rows: list[int] | str | None = None
    columns: list[int] | str | None = None


class PlaceEntry(Entry):
    """`at: {rows: [0, 64], columns: [D/2, D]}`."""

    rows: list[SizeEntry] | None = None
    columns: list[SizeEntry] | None = None


class BlocksLevel(Entry):
    """`{blocks: 4, rank: 8, scale: 0.5}`."""

    blocks: SizeEntry = 1
    rank: SizeEntry | None = None
    scale: float = 1
    permutation: PermutationEntry | None = None
    at: PlaceEntry | None = None


class EinsumLevel(Entry):
    """`{einsum: "i r, j r -> i j", sizes: {r: 4}}`."""

    einsum: str
    sizes: dict[str, SizeEntry] = {}
    scale: float = 1
    permutation: PermutationEntry | None = None
    at: PlaceEntry | None = None
    factors: list[str | None] | None = None


class MatrixFile(Entry):
    """A file that describes a matrix."""

    name: str | None = None
    shape: list[SizeEntry]
    symbols: dict[str, int] = {}
    levels: list[dict[str, Any]]


class BlockEntry(Entry):
    """`{block_size: 256, score: {family: btt, rank: 1}}`, a level of MLBTC attention."""

    block_size: int
    score: dict[str, Any]


class RopeEntry(Entry):
    """`rope: {base: 10000}`."""

    base: float = ROPE_BASE


class GroupEntry(Entry):
    """`{heads: 4, variant: mlr, ranks: [48, 16]}`, some heads of a mixed layer; a whole layer has these keys, too."""

    variant: str
    heads: int
    ranks: list[int] | None = None
    block_sizes: list[int] | None = None
    qk_norm: bool = False
    window: int | None = None
    published: bool = False
    scale: str = "standard"
    divide_by_depth: bool = False
    rope: RopeEntry | bool | None = None


class AttentionEntry(GroupEntry):
    """The value of the key `attention`."""

    width: int
    context: int
    causal: bool = True
    score: dict[str, Any] | None = None
    levels: list[BlockEntry] | None = None
    groups: list[GroupEntry] | None = None
    rms_cap: bool = False
    joint_norm: bool = False


class ScoreEntry(Entry):
    """The value of the key `score`, where it is a list of levels and not one level."""

    levels: list[dict[str, Any]]


class AttentionFile(Entry):
    """A file that describes an attention layer."""

    name: str | None = None
    attention: AttentionEntry


Model = typing.TypeVar("Model", bound=Entry)


def validate(model: type[Model], value: Value, origin: Origin, path: Path = ()) -> Model:
    """Check `value` against `model`.

    Raises:
        SpecError: the first thing that is wrong, with file, line and key, what was found and what would be right.
    """
    if not isinstance(value, dict):
        raise SpecError(f"{origin.where(*path)}: expected a mapping with the keys {_keys(model)}, found {shown(value)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise SpecError(_explain(error, model, value, origin, path)) from None


def _explain(error: ValidationError, model: type[Entry], value: Value, origin: Origin, path: Path) -> str:
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    # Members of a union add their own names to the location: keep what is really in the file.
    location = _real_path(first["loc"], value, first["type"] == "missing")
    where = origin.where(*path, *location)
    if first["type"] == "extra_forbidden":
        known = list(_model_at(model, location[:-1]).model_fields)
        return f"{where}: unknown key {shown(location[-1])}; {nearest(str(location[-1]), known)}"
    if first["type"] == "missing":
        keys = _keys(_model_at(model, location[:-1]))
        return f"{origin.where(*path, *location[:-1])}: the key {location[-1]!r} is missing; keys: {keys}"
    wanted = _wanted(details, first, model, location)
    return f"{where}: expected {wanted}, found {shown(first['input'])}"


def _real_path(location: tuple[int | str, ...], value: Any, missing: bool) -> Path:
    path: list[int | str] = []
    for key in location:
        if isinstance(value, dict) and (key in value or not path):
            path.append(key)
            value = value.get(key) if isinstance(key, str) else None
        elif isinstance(value, list) and isinstance(key, int):
            path.append(key)
            value = value[key]
        elif isinstance(value, dict) and missing and key == location[-1] and isinstance(key, str):
            path.append(key)
    return tuple(path)


def _model_at(model: type[Entry], path: Path) -> type[Entry]:
    for key in path:
        if isinstance(key, str) and key in model.model_fields:
            for part in _parts(model.model_fields[key].annotation):
                if isinstance(part, type) and issubclass(part, Entry):
                    model = part
    return model


def _parts(annotation: Any) -> tuple[Any, ...]:
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if is_union else (annotation,)


_WANTED = {
    "int_type": "an integer",
    "string_type": "a string",
    "bool_type": "true or false",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "none_required": "nothing",
}


def _wanted(details: list[Any], first: Any, model: type[Entry], location: Path) -> str:
    same = [d for d in details if d["input"] is first["input"]]
    kinds = {d["type"] for d in same}
    if {"int_type", "string_type"} <= kinds and "list_type" not in kinds:
        return "a positive integer or an expression"  # the only values that are one or the other
    return " or ".join(dict.fromkeys(_WANTED.get(d["type"], d["msg"].lower()) for d in same))


def _keys(model: type[Entry]) -> str:
    return ", ".join(model.model_fields)
