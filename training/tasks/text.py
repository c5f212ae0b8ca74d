"""Text as tokens: files to one memory-mapped array of bytes, kept in the cache under the digest of the inputs."""

from __future__ import annotations

import hashlib
import os
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from mlbtc.codegen.loading import cache_directory
from mlbtc.training.errors import TrainingError
from mlbtc.training.progress import Bytes

# The paper's 96 characters: newline and printable ASCII, in this order.
ALPHABET = bytes([10, *range(32, 127)])
VOCABULARIES = {"characters": len(ALPHABET), "bytes": 256}
VALIDATION = 0.1
_TABLE = bytes(max(0, ALPHABET.find(bytes([code]))) for code in range(256))
_DROPPED = bytes(code for code in range(256) if code not in ALPHABET)
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens of all files, in order.

    Attributes:
        train: the first nine tenths, `(tokens,)` uint8.
        validation: the rest.
        digest: SHA-256 of the contents of the files and the kind of tokens.
    """

    train: Tensor
    validation: Tensor
    digest: str


def encode(content: bytes, kind: str) -> bytes:
    """Return a token per byte; "characters" drops what is not among the 96, tabs and carriage returns too."""
    return content if kind == "bytes" else content.translate(_TABLE, _DROPPED)


def decode(tokens: Sequence[int], kind: str) -> bytes:
    """Return the bytes that tokens stand for."""
    return bytes(tokens) if kind == "bytes" else bytes(ALPHABET[token] for token in tokens)


def find_files(data: Sequence[str]) -> list[Path]:
    """Return the files of the paths, those of a folder in the order of their names; none: Python's own library.

    Raises:
        TrainingError: a path does not exist, or a folder holds no file.
    """
    if not data:
        root = Path(sysconfig.get_path("stdlib"))
        files = sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts)
        return [path for path in files if not _SKIPPED.intersection(path.relative_to(root).parts)]
    found: list[Path] = []
    for name in data:
        path = Path(name)
        if not path.exists():
            raise TrainingError(f"--data {name}: no such file or folder; give a text file or a folder of them")
        inside = sorted(part for part in path.rglob("[!.]*") if part.is_file()) if path.is_dir() else [path]
        if not inside:
            raise TrainingError(f"--data {name}: the folder holds no file; give a text file or a folder of them")
        found += inside
    return found


def load_text(data: Sequence[str], kind: str, context: int, *, console: Console | None = None) -> Text:
    """Tokenise the files, once per content, and map the tokens into memory.

    Args:
        data: files and folders; empty for the source text of Python's standard library.
        kind: "characters" or "bytes".
        context: the tokens of a window; both parts must hold one window and the token behind it.
        console: where a bar is shown while tokens are made, if it is a terminal; None for nowhere.

    Raises:
        TrainingError: a file is missing or no text, or there is too little.
    """
    files = find_files(data)
    digest = hashlib.sha256(kind.encode())
    for path in files:
        digest.update(hashlib.sha256(_read(path)).digest())
    stored = cache_directory() / f"tokens-{digest.hexdigest()}.bin"
    if not stored.is_file():
        _tokenise(files, kind, stored, console or Console(quiet=True))
    size = stored.stat().st_size
    cut = size - int(size * VALIDATION)
    if min(cut, size - cut) < context + 1:
        raise TrainingError(
            f"--data: {size} tokens, of which the last {size - cut} are for validation, are too few for windows of "
            f"{context} tokens; give at least {int((context + 1) / VALIDATION) + 1} tokens or a smaller --context"
        )
    tokens = torch.from_file(str(stored), shared=False, size=size, dtype=torch.uint8)
    return Text(tokens[:cut], tokens[cut:], digest.hexdigest())


def _tokenise(files: Sequence[Path], kind: str, stored: Path, console: Console) -> None:
    # Renamed when complete: of several processes each writes its own, and all write the same.
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tokens-", dir=stored.parent)
        try:
            with os.fdopen(handle, "wb") as file, Bytes("tokens", _sizes(files), console) as bar:
                for path in files:
                    content = _read(path)
                    file.write(encode(content, kind))
                    bar.advance(len(content))
            os.replace(temporary, stored)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{stored.parent}: cannot keep tokens there: {error.strerror or error}") from None


def _sizes(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        content.decode("utf-8")
    except OSError as error:
        raise TrainingError(f"--data {path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise TrainingError(f"--data {path}: not UTF-8 text: byte {error.start} is {content[error.start]:#x}") from None
    if b"\0" in content:
        raise TrainingError(f"--data {path}: not text: byte {content.index(0)} is 0")
    return content
