"""Where in a file a spec came from, so that later stages can say file and line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlbtc.errors import SpecError, shown

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """A source name and the line of each key, by its path such as `("levels", 2, "rank")`."""

    source: str
    lines: Mapping[Path, int] = field(hash=False)

    def where(self, *path: str | int) -> str:
        """Return `file:line: key` for a path, or for the nearest parent that has a line."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}: {render(path)}".removesuffix(": ")
        return f"{self.source}: {render(path)}".removesuffix(": ")


@contextmanager
def placed(origin: Origin | None, *path: str | int) -> Iterator[None]:
    """Put the place in the spec before what a stage complains about inside the block."""
    try:
        yield
    except SpecError as error:
        message = str(error)
        if origin is not None and message.startswith(f"{origin.source}:"):
            raise
        where = render(path) if origin is None else origin.where(*path)
        raise SpecError(f"{where}: {message}", error.key) from None


def render(path: Path) -> str:
    """Write a path as `levels[2].rank`; a key that is no short word is quoted."""
    text = ""
    for key in path:
        if isinstance(key, str) and not (key.isprintable() and len(key) <= 64):
            key = shown(key)
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text
