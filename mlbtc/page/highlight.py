"""Source with colours: spans of the classes that `templates/page.css` knows."""

from __future__ import annotations

from markupsafe import Markup
from pygments import lex
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Literal, Name, Number, String

_CLASSES = (
    (Comment, "comment"),
    (Keyword, "keyword"),
    (String, "string"),
    (Number, "number"),
    (Literal, "string"),
    (Name.Function, "defined"),
    (Name.Class, "defined"),
    (Name.Decorator, "keyword"),
    (Name.Builtin, "builtin"),
    (Name.Tag, "builtin"),
)
"""The first that a token is of; all else has no colour."""


def highlight(text: str, language: str) -> Markup:
    """Return a text as HTML with a span around each coloured token.

    Args:
        text: the source.
        language: as Pygments calls it.
    """
    parts = []
    for kind, value in lex(text, get_lexer_by_name(language, stripnl=False)):
        name = next((name for one, name in _CLASSES if kind in one), None)
        escaped = Markup.escape(value)
        parts.append(escaped if name is None else Markup('<span class="{}">{}</span>').format(f"t-{name}", escaped))
    return Markup("").join(parts)
