"""What must hold for every text: a spec that keeps its promises, or one clear message, soon and in little memory."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

import mlbtc
from mlbtc import MLBTC, AttentionSpec
from mlbtc.errors import MlbtcError
from mlbtc.graph import build_graph, check

SOURCE = "fuzz.yaml"
SECONDS = 5.0
MEMORY = 1 << 30
"""Bytes that reading and analysing one text may add."""

_PACKAGE = f"{Path(mlbtc.__file__).parent}/"
_INTERNAL = re.compile(r"Traceback|<class |object at 0x|\bpydantic|\bsympy\b|validation error|Errno")


class TooSlow(BaseException):
    """The processor time of a text is used up; no handler for mere exceptions must catch it."""


@contextlib.contextmanager
def limits(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Bound the processor time, which other work on the machine does not use up, and the memory of a block."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {seconds} s of processor time")

    statm = Path("/proc/self/statm")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def failure(text: str, seconds: float = SECONDS) -> str | None:
    """Return what is wrong with how mlbtc treats a text, or None."""
    try:
        with limits(seconds):
            return _broken_promise(text)
    except (Exception, TooSlow) as error:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _PACKAGE in frame.filename]
        return f"{type(error).__name__} in {ours[-1].name if ours else 'the reader'}: {error}"


def _broken_promise(text: str) -> str | None:
    try:
        spec = mlbtc.loads(text, SOURCE)
    except MlbtcError as error:
        return unclear(str(error), placed=True)
    again = mlbtc.loads(spec.to_yaml(), SOURCE)
    if again != spec or hash(again) != hash(spec) or again.to_yaml() != spec.to_yaml():
        return f"reads back differently: {again!s}"
    if not str(spec) or not repr(spec):
        return "prints as nothing"
    try:
        _use(spec)
    except MlbtcError as error:
        return unclear(str(error), placed=False)
    return None


def _use(spec: MLBTC | AttentionSpec) -> None:
    if isinstance(spec, MLBTC):
        if spec != spec.T.T:
            raise AssertionError("the transpose of the transpose is another spec")
        check(build_graph(spec))
    report = mlbtc.analyze(spec)
    json.loads(json.dumps(report.to_json(), allow_nan=False))
    report.to_markdown()


def unclear(message: str, placed: bool) -> str | None:
    """Return why a message is not one clear paragraph that names the place."""
    if not message.strip() or "\n\n" in message:
        return f"not one paragraph: {message!r}"
    if len(message) > 1000:
        return f"a message of {len(message)} characters: {message[:200]!r}"
    if not all(c.isprintable() or c == "\n" for c in message):
        return f"a terminal would obey this: {message!r}"
    if _INTERNAL.search(message):
        return f"speaks of what is inside: {message!r}"
    if placed and not message.startswith(f"{SOURCE}:"):
        return f"names no place: {message!r}"
    return None
