"""The contraction graph for people: what a picture of it shows, and its text in the languages DOT and Mermaid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph

Role = Literal["block", "rank", "output", "input"]
COLOURS: dict[str, str] = {"block": "#c2571a", "rank": "#1b7f5c", "output": "#3a6ea5", "input": "#7a5195"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A factor or an axis: its label, its size, and the indices that it touches."""

    key: str
    label: str
    detail: str
    is_axis: bool
    indices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """An index: its name, its size and what it is there for."""

    key: str
    name: str
    size: str
    role: Role


@dataclass(frozen=True, slots=True)
class Part:
    """One level: its tensors from the output axis to the input axis, and its indices in order."""

    number: int
    tensors: tuple[Tensor, ...]
    indices: tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A bipartite graph of tensors and indices, level by level."""

    title: str
    parts: tuple[Part, ...]


def describe(contraction: ContractionGraph, name: str = "matrix") -> Drawing:
    """Return what a picture of a contraction graph shows."""
    title = f"{name}: {contraction.shape[0]} x {contraction.shape[1]}"
    return Drawing(title, tuple(_part(contraction, level) for level in range(contraction.levels)))


def _part(contraction: ContractionGraph, level: int) -> Part:
    out, in_ = (contraction.axis(level, which) for which in (OUTPUT, INPUT))
    sizes = contraction.sizes(level)
    factors = [
        Tensor(f"l{level}_f{node[2]}", f"f{node[2]}", " x ".join(str(sizes[n]) for n in names), False, names)
        for node in contraction.factors(level)
        for names in [contraction.indices_of(node)]
    ]
    ends = [
        Tensor(f"l{level}_{which}", which, str(size), True, names)
        for which, size, names in zip((OUTPUT, INPUT), contraction.shape, (out, in_), strict=True)
    ]
    indices = tuple(
        Index(f"l{level}_i{position}", name, str(size), _role(name in out, name in in_))
        for position, (name, size) in enumerate(sizes.items())
    )
    return Part(level, (ends[0], *factors, ends[1]), indices)


def _role(on_output: bool, on_input: bool) -> Role:
    if on_output and on_input:
        return "block"
    return "output" if on_output else "input" if on_input else "rank"


def to_dot(drawing: Drawing) -> str:
    """Return the graph in the DOT language of Graphviz."""
    lines = ["graph contraction {", "  rankdir=LR;", f"  label={_quoted(drawing.title)};", "  node [fontname=sans];"]
    for part in drawing.parts:
        lines += [f"  subgraph cluster_{part.number} {{", f'    label="level {part.number}";']
        for tensor in part.tensors:
            shape = "shape=plaintext" if tensor.is_axis else 'shape=box, style=filled, fillcolor="#d7e5f5"'
            lines.append(f"    {tensor.key} [label={_quoted(f'{tensor.label}: {tensor.detail}')}, {shape}];")
        for index in part.indices:
            label = _quoted(f"{index.name} = {index.size}")
            lines.append(f'    {index.key} [label={label}, shape=ellipse, color="{COLOURS[index.role]}"];')
        lines += [f"    {tensor} -- {index};" for tensor, index in edges(part)]
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def to_mermaid(drawing: Drawing) -> str:
    """Return the graph as a Mermaid flowchart."""
    lines = ["---", f"title: {_quoted(drawing.title)}", "---", "graph LR"]
    for part in drawing.parts:
        lines.append(f'  subgraph level{part.number}["level {part.number}"]')
        for tensor in part.tensors:
            text = _entities(f"{tensor.label}: {tensor.detail}")
            lines.append(f'    {tensor.key}{"([" if tensor.is_axis else "["}"{text}"{"])" if tensor.is_axis else "]"}')
        for index in part.indices:
            lines.append(f'    {index.key}(("{_entities(f"{index.name} = {index.size}")}")):::{index.role}')
        lines += [f"    {tensor} --- {index}" for tensor, index in edges(part)]
        lines.append("  end")
    lines += [f"  classDef {role} stroke:{colour},stroke-width:2px" for role, colour in COLOURS.items()]
    return "\n".join(lines) + "\n"


def edges(part: Part) -> list[tuple[str, str]]:
    """Return the pairs of a tensor and an index that touch, by their keys."""
    key = {index.name: index.key for index in part.indices}
    return [(tensor.key, key[name]) for tensor in part.tensors for name in tensor.indices]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _entities(text: str) -> str:
    """Escape what Mermaid reads: quotes, markup and its own entity sign."""
    named = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"}
    return "".join(named.get(letter, letter) for letter in text)
