"""Make a failing text small: remove ever smaller pieces for as long as it fails in the same way."""

from __future__ import annotations

from collections.abc import Callable


def shrink(text: str, fails: Callable[[str], bool], attempts: int = 400) -> str:
    """Return a text of which no tried piece can be left out.

    Args:
        text: a failing text.
        fails: whether a text fails in the same way.
        attempts: how many texts to try at most.
    """
    size = max(1, len(text) // 2)
    while attempts > 0:
        start = removed = 0
        while start < len(text) and attempts > 0:
            attempts -= 1
            shorter = text[:start] + text[start + size :]
            if fails(shorter):
                text, removed = shorter, removed + 1
            else:
                start += size
        if size == 1 and not removed:
            break
        size = max(1, size // 2)
    return text
