"""The package transformers, looked for only when it is used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from mlbtc.errors import BackendError

LEAST = (5, 4)
"""The first version whose masks are made from lengths and offsets."""


def part(name: str) -> ModuleType:
    """Return the module `transformers.<name>`.

    Raises:
        BackendError: the package is not installed, or too old.
    """
    wanted = ".".join(map(str, LEAST))
    install = f"pip install 'transformers>={wanted}'"
    try:
        version: str = import_module("transformers").__version__
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise BackendError(f"mlbtc.integrations.transformers needs the package transformers: {install}") from None
    if tuple(map(int, version.split(".")[:2])) < LEAST:
        raise BackendError(
            f"mlbtc.integrations.transformers needs transformers {wanted} or newer, found {version}: {install}"
        )
    return import_module(f"transformers.{name}")
