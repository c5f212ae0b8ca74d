"""Random products of two factors, every role of an index among them, and sums of such products."""

import string

import torch
from hypothesis import strategies as st
from torch import Tensor

from mlbtc import MLBTC
from tests.codegen.random_specs import Part

SIZES = st.sampled_from([1, 1, 2, 3, 4, 5, 7])
ROLES = {
    "k": "ioRL",
    "kr": "ioR",
    "kl": "ioL",
    "c": "iRL",
    "cl": "iL",
    "d": "iR",
    "b": "oRL",
    "br": "oR",
    "a": "oL",
    "s": "RL",
}
"""Where an index of each kind stands: on the input, on the output, on the right and the left factor."""


@st.composite
def parts(draw: st.DrawFn, shape: tuple[int, int] | None = None) -> Part:
    """Draw one level of two factors; with a shape, low rank of that shape."""
    if shape is not None:
        rank = draw(SIZES)
        return Part([shape[0], shape[1], rank], [[0, 2], [1, 2]], [0], [1], scale=draw(st.sampled_from([1, -0.5])))
    kinds = draw(st.lists(st.sampled_from(sorted(ROLES)), min_size=2, max_size=6))
    # Each axis and each factor has an index at least, and the two factors meet.
    kinds += ["d", "a"]
    part = Part(scale=draw(st.sampled_from([1, 1, 0.5, -2])))
    held: dict[str, list[int]] = {letter: [] for letter in "ioRL"}
    for label, kind in enumerate(kinds):
        part.sizes.append(draw(SIZES))
        for letter in ROLES[kind]:
            held[letter].append(label)
    for labels in held.values():
        labels[:] = draw(st.permutations(labels))
    part.factors = [held["L"], held["R"]]
    part.output, part.input = held["o"], held["i"]
    return part


@st.composite
def matrices(draw: st.DrawFn) -> tuple[MLBTC, list[Part]]:
    """Draw a matrix of one or two levels, and the levels."""
    first = draw(parts())
    shape = (first.size(first.output), first.size(first.input))
    levels = [first, draw(parts(shape))] if draw(st.booleans()) else [first]
    return MLBTC(shape, [part.level(list(string.ascii_lowercase)) for part in levels]), levels


def dense(levels: list[Part], factors: list[Tensor]) -> Tensor:
    """Return the matrix of factors in the order of the spec, in float64."""
    found, rest = [], iter(factors)
    for level in levels:
        found.append(level.dense([next(rest).double() for _ in level.factors]))
    return torch.stack(found).sum(0)


def drawn_factors(levels: list[Part], generator: torch.Generator) -> list[Tensor]:
    """Draw factors whose product has entries of the order of 1."""
    shapes = [[level.sizes[label] for label in labels] for level in levels for labels in level.factors]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
