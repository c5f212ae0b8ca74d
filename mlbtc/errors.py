"""Every error mlbtc raises on purpose: one base class, one subclass per stage."""


class MlbtcError(Exception):
    """Base of all errors that a user's input, files or machine can cause."""


class SpecError(MlbtcError, ValueError):
    """A spec, an expression or a spec file does not follow the grammar.

    Args:
        message: where, what was found, what would be right.
        key: the argument that the message is about, for callers that know in which line it stands.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class GraphError(MlbtcError, ValueError):
    """A contraction graph is not a matrix: sizes, reachability or coverage are wrong."""


class AnalysisError(MlbtcError, ValueError):
    """A report was asked for something its spec cannot say."""


class PlanError(MlbtcError, ValueError):
    """A graph cannot be planned as it stands, for instance with unbound symbols."""


class CodegenError(MlbtcError, ValueError):
    """A plan cannot become source, or the source cannot be loaded."""


class BackendError(MlbtcError, RuntimeError):
    """A backend or target was asked for that cannot run here."""


def nearest(found: str, known: "list[str] | tuple[str, ...]") -> str:
    """Return `did you mean 'x'?` for the nearest known word, or the list of known words."""
    import difflib

    close = difflib.get_close_matches(found[:64], known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(sorted(known))


def shown(value: object) -> str:
    """Write a found value for a message, cut to one short line."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
