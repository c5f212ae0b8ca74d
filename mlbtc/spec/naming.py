"""What a spec may be called: names reach file names, comments and class names."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from mlbtc.errors import SpecError, shown

_FACTOR = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


def check_name(name: object) -> str:
    """Return `name` if it is letters, digits, spaces, '.', '_' and '-', at most 64 characters.

    Raises:
        SpecError: it is not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = repr(name) if len(repr(name)) <= 80 else repr(name)[:77] + "..."
        raise SpecError(f"a name is at most 64 letters, digits, spaces, '.', '_' and '-', found {shown}")
    return name


def check_factor_names(names: Sequence[str | None] | None, count: int) -> tuple[str | None, ...]:
    """Return a name or None for each of `count` factors; None stands for no names.

    Raises:
        SpecError: their number is another, or one is no word.
    """
    if names is None:
        return (None,) * count
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != count:
        raise SpecError(f"factors is a list with a name or nothing for each factor, {count} here; found {shown(names)}")
    for name in names:
        if name is not None and (not isinstance(name, str) or not _FACTOR.fullmatch(name) or keyword.iskeyword(name)):
            raise SpecError(
                "the name of a factor is a word of letters, digits and '_' (at most 32) that starts with a letter, and "
                f"no keyword of Python; found {str(name)[:80]!r}"
            )
    return tuple(names)


def join_names(one: str, operation: str, other: str) -> str:
    """Return a name for what an operation makes of two specs, cut to 64 characters."""
    return f"{one}-{operation}-{other}"[:64].rstrip(" ._-")


def class_name(name: str) -> str:
    """Return a Python class name made of `name`: `local-and-global` becomes `LocalAndGlobal`."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    joined = "".join(word[:1].upper() + word[1:] for word in words if word)
    return f"Matrix{joined}" if keyword.iskeyword(joined) or not joined[:1].isalpha() else joined


def fresh_names(taken: Iterable[str]) -> Callable[[str], str]:
    """Return a function that makes index names which nobody has: r becomes r2, r3, ..."""
    used = set(taken)

    def name(base: str) -> str:
        stem = base.rstrip("0123456789")[:24] or "i"
        new = next(found for number in count(2) if (found := f"{stem}{number}") not in used)
        used.add(new)
        return new

    return name
