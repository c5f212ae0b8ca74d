"""Files that survive a kill or a power cut: written beside their place, forced to the disk, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that its name always holds the old content or all of the new one.

    Args:
        path: the file.
        write: writes the content to the path that it is given. What a killed writer left there is overwritten.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file durably."""
    write_durably(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, durably."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def move_folder(temporary: Path, final: Path) -> None:
    """Force a folder of files to the disk and give it its name; nothing may be there yet."""
    for path in temporary.iterdir():
        sync(path)
    sync(temporary)
    os.replace(temporary, final)
    sync(final.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder, whoever else removes it at the same time."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        # Windows opens no folders, and writes names through by itself.
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
