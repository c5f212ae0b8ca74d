"""Going on with a record: earlier results are taken only if all that the numbers depend on is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbtc.benchmarks.figures import read_record
from mlbtc.benchmarks.runner import Absent, BenchmarkError, Result, Timing

SAME = ("suite", "command", "machine", "settings")
"""The parts of a record that must not differ between its cases."""

MEASURED = "barrier_seconds"
"""The part of the machine that is a timing itself, so another one in every call."""


def check_unclaimed(path: Path) -> None:
    """Refuse to write over a record that lacks cases: it may be an hour's work.

    Raises:
        BenchmarkError: there is one.
    """
    try:
        missing = read_record(path).get("missing_cases", 0) if path.is_file() else 0
    except BenchmarkError:
        return
    if missing:
        raise BenchmarkError(
            f"--out {path}: that record lacks {missing} cases; go on with it by --resume, or delete the file first"
        )


def earlier_results(path: Path, wanted: str) -> list[Result]:
    """Return the results of an unfinished record; none where there is no file yet.

    Args:
        path: of the record.
        wanted: the record that the present call would write, without results.

    Raises:
        BenchmarkError: the file is no record, or one of another command, machine, version or setting.
    """
    if not path.exists():
        return []
    found, now = read_record(path), json.loads(wanted)
    for part in SAME:
        difference = _difference(part, found.get(part), now[part])
        if difference:
            raise BenchmarkError(
                f"--resume {path}: {difference}; repeat what made the record, or name another file with --out"
            )
    try:
        return [_result(result) for result in found["results"]]
    except (KeyError, TypeError, ValueError):
        raise BenchmarkError(f"--resume {path}: a result in it cannot be read; delete it and start anew") from None


def _difference(name: str, found: Any, now: Any) -> str:
    """Return what differs, down to the key, or an empty string."""
    if isinstance(found, dict) and isinstance(now, dict):
        keys = [key for key in {**found, **now} if key != MEASURED]
        differences = (_difference(f"{name} {key}", found.get(key), now.get(key)) for key in keys)
        return next((text for text in differences if text), "")
    return "" if found == now else f"its {name} is {found!r}, now it is {now!r}"


def _result(found: Mapping[str, Any]) -> Result:
    timings = (Timing(**{**timing, "quartiles": tuple(timing["quartiles"])}) for timing in found["timings"])
    return Result(
        **{
            **found,
            "timings": tuple(timings),
            "absent": tuple(Absent(**one) for one in found["absent"]),
            "claims": tuple((ours, theirs) for ours, theirs in found["claims"]),
        }
    )
