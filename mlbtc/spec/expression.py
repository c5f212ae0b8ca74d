"""The einsum grammar of a level: `b a c s, c b s d -> (b a) (c d)`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlbtc.errors import SpecError, shown
from mlbtc.spec.sizes import NAME

MAX_CHARS = 4000
MAX_FACTORS = 64
MAX_FACTOR_INDICES = 24
_TOKEN = re.compile(r"\s*(->|[(),]|[A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Expression:
    """A product of factors seen as a matrix.

    Attributes:
        factors: the index names of each factor, in the order in which it is stored.
        output: index names of the output axis, slowest first.
        input: index names of the input axis, slowest first.
    """

    factors: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    input: tuple[str, ...]

    @property
    def indices(self) -> tuple[str, ...]:
        """All index names in order of first appearance."""
        names = [name for factor in self.factors for name in factor]
        return tuple(dict.fromkeys([*names, *self.output, *self.input]))

    @property
    def block_indices(self) -> tuple[str, ...]:
        """Indices shared by the output and the input axis."""
        return tuple(name for name in self.output if name in self.input)

    @property
    def rank_indices(self) -> tuple[str, ...]:
        """Indices on neither axis, summed inside the level."""
        return tuple(name for name in self.indices if name not in self.output and name not in self.input)

    def __str__(self) -> str:
        left = ", ".join(" ".join(factor) for factor in self.factors)
        return f"{left} -> {_axis(self.output)} {_axis(self.input)}"


def _axis(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"({' '.join(names)})"


def is_writable(expression: Expression) -> bool:
    """Return whether an expression that a rewrite made is within the limits of the grammar, so that it can be read."""
    longest = max(map(len, expression.factors))
    return longest <= MAX_FACTOR_INDICES and len(str(expression)) <= MAX_CHARS


def parse_expression(text: str) -> Expression:
    """Parse `text`, for instance `k i r, k j r -> (k i) (k j)`.

    Raises:
        SpecError: the text does not follow the grammar; the message points at the place with a caret.
    """
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over one expression; `self.position` is where the next token starts."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise SpecError(f"an einsum expression is a string, found {shown(text)}")
        if len(text) > MAX_CHARS:
            raise SpecError(f"an einsum expression has at most {MAX_CHARS} characters, found {len(text)}")
        self.text = text.replace("\n", " ")
        self.position = 0
        self.token = ""
        self.start = 0
        self.advance()

    def fail(self, reason: str, at: int | None = None) -> SpecError:
        at = self.start if at is None else at
        begin = max(0, at - 60)
        # One character for one, so that the caret stays in place; a terminal would obey escape sequences.
        shown = "".join(c if c.isprintable() else "?" for c in self.text[begin : at + 60])
        return SpecError(f"{reason}\n    {shown}\n    {' ' * (at - begin)}^")

    def advance(self) -> None:
        rest = self.text[self.position :]
        self.start = self.position + len(rest) - len(rest.lstrip())
        if not rest.strip():
            self.token = ""
            return
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            raise self.fail("index names are words; only ',', '->', '(' and ')' may stand between them, found "
                            f"{self.text[self.start]!r}")  # fmt: skip
        self.token, self.position = match.group(1), match.end()

    def parse(self) -> Expression:
        factors = [self.factor()]
        while self.token == ",":
            self.advance()
            factors.append(self.factor())
        if self.token != "->":
            raise self.fail(f"expected ',' or '->' after a factor, found {shown(self.token or 'the end')}")
        self.advance()
        output, input_ = self.axis("output"), self.axis("input")
        if self.token:
            raise self.fail(f"a matrix has two axes, output and input, found a third part {shown(self.token)}")
        if len(factors) > MAX_FACTORS:
            raise SpecError(f"a level has at most {MAX_FACTORS} factors, found {len(factors)}")
        found = self.check(Expression(tuple(factors), output, input_))
        # Without spaces the text is shorter than what a file is written with, which must be readable too.
        if len(str(found)) > MAX_CHARS:
            raise SpecError(f"an einsum expression has at most {MAX_CHARS} characters, found {len(str(found))}")
        return found

    def name(self) -> str:
        if not NAME.fullmatch(self.token):
            raise self.fail(f"an index name has at most 32 characters, found {len(self.token)}")
        word = self.token
        self.advance()
        return word

    def names(self, where: str) -> tuple[str, ...]:
        found: list[str] = []
        while self.token and (self.token[0].isalpha() or self.token[0] == "_"):
            if self.token in found:
                raise self.fail(f"index {shown(self.token)} stands twice in {where}")
            found.append(self.name())
        return tuple(found)

    def factor(self) -> tuple[str, ...]:
        found = self.names("one factor")
        if self.token in ("(", ")"):
            raise self.fail(f"parentheses group the axes behind '->' only, found {shown(self.token)} in a factor")
        if not found:
            raise self.fail(f"expected the index names of a factor, found {shown(self.token or 'the end')}")
        if len(found) > MAX_FACTOR_INDICES:
            raise self.fail(f"a factor has at most {MAX_FACTOR_INDICES} indices, found {len(found)}")
        return found

    def axis(self, which: str) -> tuple[str, ...]:
        if self.token == "(":
            opened = self.start
            self.advance()
            found = self.names(f"the {which} axis")
            if self.token != ")":
                raise self.fail(f"this '(' of the {which} axis is never closed", opened)
            self.advance()
            return found
        if not self.token or not NAME.match(self.token):
            raise self.fail(f"expected the {which} axis, a name or a group such as (k i), "
                            f"found {shown(self.token or 'the end')}")  # fmt: skip
        return (self.name(),)

    def check(self, expression: Expression) -> Expression:
        held = {name for factor in expression.factors for name in factor}
        arrow = self.text.index("->")
        for which, axis in (("output", expression.output), ("input", expression.input)):
            for name in axis:
                if name not in held:
                    at = re.compile(rf"\b{name}\b").search(self.text, arrow)
                    raise self.fail(f"index {name!r} of the {which} axis is on no factor", at.start() if at else arrow)
        return expression
