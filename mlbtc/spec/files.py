"""Spec files: YAML in, `MLBTC` or `AttentionSpec` out, every error with file, line and key."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from mlbtc.errors import SpecError, nearest, shown
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.expression import parse_expression
from mlbtc.spec.families import FAMILIES
from mlbtc.spec.index import entry_of, is_index, names_of, refuse_index, split_address
from mlbtc.spec.language import MLBTC
from mlbtc.spec.layout import check_whole
from mlbtc.spec.level import Level
from mlbtc.spec.naming import check_name
from mlbtc.spec.nodes import MAX_BYTES, Document, read_document
from mlbtc.spec.origin import Origin, Path, placed
from mlbtc.spec.place import SIDES, Place, as_place, fit, part_shape
from mlbtc.spec.resolution import resolve
from mlbtc.spec.schema import (
    AttentionEntry,
    AttentionFile,
    BlocksLevel,
    EinsumLevel,
    GroupEntry,
    MatrixFile,
    PlaceEntry,
    RopeEntry,
    ScoreEntry,
    validate,
)
from mlbtc.spec.sizes import Size, as_size, symbol


def load(path: str | os.PathLike[str]) -> MLBTC | AttentionSpec:
    """Read a spec file.

    Args:
        path: a YAML file in the grammar of docs/file-grammar.md, or `INDEX.yaml:NAME` for one of the specs of an index.

    Raises:
        SpecError: the file cannot be read or does not follow the grammar, or the index has no such spec.
    """
    file, name = split_address(os.fspath(path))
    if name is None:
        return loads(_text_of(path), source=file)
    return _read(entry_of(read_document(_text_of(file), file), name))


def addresses(path: str | os.PathLike[str]) -> list[str]:
    """Return what `load` takes for each spec of a file: `INDEX.yaml:NAME` for all of an index, else the path itself.

    Raises:
        SpecError: the file cannot be read or is no YAML, or an index has no specs.
    """
    file, name = split_address(os.fspath(path))
    if name is not None:
        return [os.fspath(path)]
    document = read_document(_text_of(file), file)
    if not is_index(document.value):
        return [file]
    return [f"{file}:{one}" for one in names_of(document)]


def load_shaped(path: str | os.PathLike[str], shape: tuple[int, int]) -> MLBTC:
    """Read the spec of a matrix of any shape, and give it one.

    Other than `load(path).bind(...)`, which needs square roots that are whole, this reads the file as if the numbers
    stood there: families choose their factors by them.

    Args:
        path: a YAML file whose axes are symbols, `shape: [O, I]`; a square one may have one symbol for both.
        shape: (out, in).

    Returns:
        The spec without open symbols.

    Raises:
        SpecError: the file cannot be read, is no matrix, has another shape, or the numbers do not fit its levels.
    """
    found = load(path)
    if not isinstance(found, MLBTC):
        raise SpecError(f"{os.fspath(path)}: expected the spec of a matrix (keys shape and levels), found attention")
    document = read_document(_text_of(path), os.fspath(path))
    value, where = document.value, document.origin.where("shape")
    assert isinstance(value, dict)
    numbers: dict[str, int] = {}
    for axis, number in zip(found.shape, shape, strict=True):
        name = str(axis)
        known = axis if isinstance(axis, int) else numbers.setdefault(name, number) if name.isidentifier() else None
        if known != number:
            raise SpecError(
                f"{where}: a {shape[0]} x {shape[1]} matrix is wanted, found {shown([str(a) for a in found.shape])}; "
                "for any shape write two symbols, shape: [O, I]"
            )
    # The symbols of the axes have no defaults any more: nothing may be left that no size uses.
    symbols = {name: size for name, size in found.defaults if name not in numbers}
    spec = _matrix(value | {"shape": list(shape), "symbols": symbols}, document.origin)
    return spec.bind(**{name: number for name, number in numbers.items() if name in spec.symbols}).bind_defaults()


def _text_of(path: str | os.PathLike[str]) -> str:
    source = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{source}: cannot read the file: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise SpecError(f"{source}: a spec file has at most {MAX_BYTES} bytes, found more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(f"{source}:{line}: not a UTF-8 text file (byte {error.start})") from None


def loads(text: str, source: str = "<string>") -> MLBTC | AttentionSpec:
    """Read a spec from YAML text.

    Args:
        text: the text of a spec file.
        source: what messages call it.

    Raises:
        SpecError: the text does not follow the grammar.
    """
    return _read(read_document(text, source))


def _read(document: Document) -> MLBTC | AttentionSpec:
    value, origin = document.value, document.origin
    if not isinstance(value, dict):
        raise SpecError(f"{origin.where()}: a spec file is a mapping with shape and levels or attention, "
                        f"found {shown(value)}")  # fmt: skip
    if is_index(value):
        refuse_index(value, origin)
    if "attention" in value:
        return _attention(value, origin)
    return _matrix(value, origin)


def _name(given: str | None, origin: Origin) -> str:
    if given is not None:
        with placed(origin, "name"):
            return check_name(given)
    stem = PurePath(origin.source).stem
    try:
        return check_name(stem)
    except SpecError:
        return "matrix"


def _attention(value: dict[str, Any], origin: Origin) -> AttentionSpec:
    file = validate(AttentionFile, value, origin)
    entry = file.attention
    name = _name(file.name, origin)
    keys = _keys(entry)
    if entry.score is not None:
        keys["score"] = _score(entry.score, entry.width, origin, ("attention", "score"))
    if entry.levels is not None:
        paths = [("attention", "levels", number, "score") for number in range(len(entry.levels))]
        pairs = zip(entry.levels, paths, strict=True)
        keys["levels"] = [(level.block_size, _score(level.score, entry.width, origin, path)) for level, path in pairs]
    if entry.groups is not None:
        keys["groups"] = _groups(entry, origin)
    return _layer(keys | {"name": name, "origin": origin}, origin, ("attention",))


def _keys(entry: GroupEntry) -> dict[str, Any]:
    """Return the keys of an entry as arguments of a spec."""
    keys = {key: getattr(entry, key) for key in type(entry).model_fields}
    return keys | ({"rope": entry.rope.base} if isinstance(entry.rope, RopeEntry) else {})


def _groups(entry: AttentionEntry, origin: Origin) -> list[AttentionSpec]:
    """Read the groups of a mixed layer, each a layer as wide as its heads."""
    assert entry.groups is not None
    shared = {"context": entry.context, "causal": entry.causal}
    groups = []
    for number, group in enumerate(entry.groups):
        path: Path = ("attention", "groups", number)
        with placed(origin, *path, "heads"):
            check_whole(entry.heads, "heads", "heads")
            check_whole(group.heads, "heads", "heads")
        width = max(1, entry.width // entry.heads) * group.heads
        groups.append(_layer(_keys(group) | shared | {"width": width}, origin, path))
    return groups


def _layer(keys: dict[str, Any], origin: Origin, path: Path) -> AttentionSpec:
    try:
        return AttentionSpec(**keys)
    except SpecError as error:
        raise SpecError(f"{origin.where(*path, error.key or 'variant')}: {error}") from None


def _score(entry: dict[str, Any], width: int, origin: Origin, path: Path) -> MLBTC:
    """Read a (width, width) matrix: `{levels: [...]}` or a single level."""
    with placed(origin, "attention", "width"):
        shape = [as_size(width, "width")] * 2
    if "levels" not in entry:
        levels = _checked_level(entry, shape, origin, path)
    else:
        entries = validate(ScoreEntry, entry, origin, path).levels
        numbered = enumerate(entries)
        levels = [level for n, e in numbered for level in _checked_level(e, shape, origin, (*path, "levels", n))]
    with placed(origin, *path):
        return MLBTC(shape, levels, "score")


def _checked_level(entry: dict[str, Any], shape: list[Size], origin: Origin, path: Path) -> list[Level]:
    """Read an entry, which may stand for several levels, and check it where its line is known."""
    levels = _level(entry, shape, origin, path)
    for level in levels:
        with placed(origin, *path):
            resolve(level, shape[0], shape[1])
    return levels


def _matrix(value: dict[str, Any], origin: Origin) -> MLBTC:
    file = validate(MatrixFile, value, origin)
    if len(file.shape) != 2:
        raise SpecError(f"{origin.where('shape')}: shape is a pair [out, in], found {shown(file.shape)}")
    shape: list[Size] = []
    for axis, size in enumerate(file.shape):
        with placed(origin, "shape", axis):
            shape.append(as_size(size, "an axis"))
    for symbol_name, default in file.symbols.items():
        with placed(origin, "symbols", symbol_name):
            symbol(symbol_name)
            as_size(default, f"the default of symbol {symbol_name}")
    if not file.levels:
        raise SpecError(f"{origin.where('levels')}: a spec has at least one level, found an empty list")
    levels: list[Level] = []
    lines: list[int] = []
    for number, entry in enumerate(file.levels):
        path = ("levels", number)
        found = _checked_level(entry, shape, origin, path)
        levels += found
        lines += [origin.lines[path]] * len(found)
    _check_symbols_used(file.symbols, [*shape, *(size for level in levels for size in level.stated_sizes)], origin)
    per_level: dict[Path, int] = {(): 1, ("shape",): origin.lines[("shape",)]}
    per_level |= {("levels", number): line for number, line in enumerate(lines)}
    name = _name(file.name, origin)
    with placed(origin):
        return MLBTC(shape, levels, name, file.symbols, Origin(origin.source, per_level))


def _check_symbols_used(symbols: dict[str, int], sizes: list[Size], origin: Origin) -> None:
    used = {str(s) for size in sizes if not isinstance(size, int) for s in size.free_symbols}
    for name in symbols:
        if name not in used:
            known = ", ".join(sorted(used)) or "none"
            raise SpecError(f"{origin.where('symbols', name)}: no size uses the symbol {name!r}; symbols used: {known}")


def _level(entry: dict[str, Any], shape: list[Size], origin: Origin, path: Path) -> list[Level]:
    kinds = [key for key in ("einsum", "family") if key in entry]
    if len(kinds) == 2:
        raise SpecError(f"{origin.where(*path)}: a level is either einsum or family, found both")
    if kinds == ["family"]:
        return _family(entry, shape, origin, path)
    if kinds == ["einsum"]:
        return [_einsum(validate(EinsumLevel, entry, origin, path), origin, path)]
    written = validate(BlocksLevel, entry, origin, path)
    if "rank" in entry and entry["rank"] is None:
        raise SpecError(
            f"{origin.where(*path, 'rank')}: rank is empty; write a rank, or leave the key out for dense blocks"
        )
    if not {"blocks", "rank"} & set(entry):
        raise SpecError(
            f"{origin.where(*path)}: a level needs blocks and rank, einsum, or family; found {shown(entry)}"
        )
    return [_blocks(written, origin, path)]


def _einsum(written: EinsumLevel, origin: Origin, path: Path) -> Level:
    for index, size in written.sizes.items():
        with placed(origin, *path, "sizes", index):
            as_size(size, f"the size of index {index!r}")
    with placed(origin, *path, "einsum"):
        parse_expression(written.einsum)
    at = _place(written.at, origin, path)
    with placed(origin, *path):
        level = Level.einsum(written.einsum, written.sizes, written.scale, _pair(written.permutation), at)
    with placed(origin, *path, "factors"):
        return level.named(written.factors)


def _blocks(written: BlocksLevel, origin: Origin, path: Path) -> Level:
    with placed(origin, *path, "blocks"):
        as_size(written.blocks, "blocks")
    if written.rank is not None:
        with placed(origin, *path, "rank"):
            as_size(written.rank, "rank")
    at = _place(written.at, origin, path)
    with placed(origin, *path):
        return Level(written.blocks, written.rank, written.scale, _pair(written.permutation), at)


def _place(entry: PlaceEntry | None, origin: Origin, path: Path) -> Place | None:
    """Read the value of the key `at`."""
    if entry is None:
        return None
    for side in SIDES:
        with placed(origin, *path, "at", side):
            # One side at a time: the message names the line of the side that is wrong.
            as_place((getattr(entry, side), None) if side == "rows" else (None, getattr(entry, side)))
    return as_place((entry.rows, entry.columns))


def _pair(entry: Any) -> tuple[Any, Any] | None:
    return None if entry is None else (entry.rows, entry.columns)


def _family(entry: dict[str, Any], shape: list[Size], origin: Origin, path: Path) -> list[Level]:
    name = entry["family"]
    if not isinstance(name, str) or name not in FAMILIES:
        hint = nearest(str(name), list(FAMILIES))
        raise SpecError(f"{origin.where(*path, 'family')}: unknown family {shown(name)}; {hint}")
    family = FAMILIES[name]
    parameters = inspect.signature(family).parameters
    arguments = {key: value for key, value in entry.items() if key not in ("family", "scale", "at")}
    shape, at = _part(entry.get("at"), shape, origin, path)
    for key in arguments:
        if key == "shape":
            raise SpecError(f"{origin.where(*path, key)}: the shape of a family is that of the file, above the levels")
        if key not in parameters:
            keys = [p for p in parameters if p != "shape"]
            hint = nearest(key, [*keys, "scale", "at"])
            raise SpecError(f"{origin.where(*path, key)}: {name} has no key {shown(key)}; {hint}")
        _check_argument(key, parameters[key].annotation, arguments[key], origin, (*path, key))
    if "shape" in parameters:
        arguments["shape"] = shape
    elif "n" in parameters and "n" not in arguments:
        arguments["n"] = shape[0]
    missing = [p for p in parameters if parameters[p].default is inspect.Parameter.empty and p not in arguments]
    if missing:
        raise SpecError(f"{origin.where(*path)}: {name} needs the key {missing[0]!r}")
    with placed(origin, *path), _without_numbers():
        spec = family(**arguments)
    if list(spec.shape) != shape:
        said = "the file" if at is None else "its place"
        raise SpecError(f"{origin.where(*path)}: this {name} has shape {list(spec.shape)}, {said} says {shape}")
    with placed(origin, *path, "scale"):
        return [level.scaled(entry.get("scale", 1)).placed(at) for level in spec.levels]


def _part(entry: Any, shape: list[Size], origin: Origin, path: Path) -> tuple[list[Size], Place | None]:
    """Return the shape of the part that a family fills, and its place."""
    if entry is None:
        return shape, None
    at = _place(validate(PlaceEntry, entry, origin, (*path, "at")), origin, path)
    with placed(origin, *path, "at"):
        at, _ = fit(at, (shape[0], shape[1]))
    return list(part_shape(at, (shape[0], shape[1]))), at


@contextmanager
def _without_numbers() -> Iterator[None]:
    """Leave out which of a family's own levels a message is about: the file has one entry for all of them."""
    try:
        yield
    except SpecError as error:
        raise SpecError(re.sub(r"^levels\[\d+\]: ", "", str(error)), error.key) from None


def _check_argument(key: str, kind: str, value: Any, origin: Origin, path: Path) -> None:
    """Family arguments are sizes, lists of sizes, or permutations; `kind` is the annotation of the parameter."""
    if key == "rows" and "str" in kind and isinstance(value, list | str):
        return  # the permutation checks names and positions, which may be 0, itself
    wants_list = kind.startswith(("Sequence", "Shape"))
    if wants_list and not isinstance(value, list):
        raise SpecError(f"{origin.where(*path)}: {key} must be a list, found {shown(value)}")
    if kind == "Shape" and len(value) != 2:
        raise SpecError(f"{origin.where(*path)}: {key} is a pair of sizes, found {shown(value)}")
    for number, item in enumerate(value if wants_list else [value]):
        with placed(origin, *path, *([number] if wants_list else [])):
            as_size(item, key)
