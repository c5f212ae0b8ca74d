"""Source to module: an on-disk cache keyed by content, and loading that runs nothing but the given text."""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import linecache
import os
import sys
import tempfile
import threading
import types
from functools import partial
from pathlib import Path
from typing import Any

from mlbtc.errors import CodegenError

_PREFIX = "mlbtc_emitted_"
_LOCK = threading.RLock()


def cache_directory() -> Path:
    """Return where emitted source is kept: `$MLBTC_CACHE`, else `mlbtc` in the user's cache directory."""
    chosen = os.environ.get("MLBTC_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "mlbtc"


def load_source(source: str) -> types.ModuleType:
    """Load Python source as a module, once per process and content.

    The text is stored under its hash, so that tracebacks and debuggers can show it. What runs is always the text given
    here: a file that was changed since is written anew, never executed.

    Args:
        source: the text of a module that imports nothing but torch.

    Raises:
        CodegenError: the text does not compile or cannot be stored.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:32]
    name = _PREFIX + digest
    with _LOCK:
        return sys.modules.get(name) or _load(name, source)


def _load(name: str, source: str) -> types.ModuleType:
    path = cache_directory() / f"{name}.py"
    _store(path, source)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    try:
        code = compile(source, str(path), "exec")
    except SyntaxError as error:
        raise CodegenError(f"the emitted source does not compile: {error}") from error
    linecache.cache[str(path)] = (len(source), None, source.splitlines(keepends=True), str(path))
    # Registered before it runs, so that classes find their own module (pickle, inspect).
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    for found in vars(module).values():
        if isinstance(found, type) and found.__module__ == name:
            # Another process does not have the module: what is pickled carries its source.
            copyreg.pickle(found, partial(_reduce, source))
    return module


def _reduce(source: str, instance: Any) -> tuple[Any, ...]:
    return _rebuild, (source, type(instance).__qualname__), vars(instance)


def _rebuild(source: str, class_name: str) -> Any:
    cls = getattr(load_source(source), class_name)
    return cls.__new__(cls)


def load_class(source: str) -> Any:
    """Load emitted source and return the class it is about, the last one it defines."""
    module = load_source(source)
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    return own[-1]


def _store(path: Path, source: str) -> None:
    try:
        if path.is_file() and path.read_bytes() == source.encode():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, source)
    except OSError as error:
        reason = error.strerror or error
        raise CodegenError(
            f"cannot write to the cache {path.parent}: {reason}; set MLBTC_CACHE to a folder that can be written"
        ) from error


def keep(path: Path, text: str) -> None:
    """Write a file of the cache that the next process would have to make again; a cache that takes none loses that."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, text)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name in the same folder, then rename it; a device or pipe is written to.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
