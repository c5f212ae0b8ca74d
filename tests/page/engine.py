"""What computes the scripts of a page in tests, node or the one inside Playwright, and what Python says instead."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlbtc import MLBTC, AttentionSpec, analyze
from mlbtc.errors import MlbtcError
from mlbtc.page.build import script
from mlbtc.page.model import Model
from mlbtc.page.sliders import TOKENS_KEY, Slider, size_key

Values = Mapping[str, int]
PRINT = "console.log(JSON.stringify(RESULT, (_, value) => (typeof value === 'bigint' ? value.toString() : value)));"


def node() -> str:
    """Return the path of node; skip the test where there is none."""
    found = shutil.which("node")
    if found is None and (package := importlib.util.find_spec("playwright")) is not None:
        bundled = Path(str(package.origin)).parent / "driver" / "node"
        found = str(bundled) if bundled.is_file() else None
    if found is None:
        pytest.skip("no JavaScript engine: neither node nor Playwright (pip install 'mlbtc[browser]')")
    return found


def run(code: str) -> Any:
    """Run a script that sets RESULT, and return that."""
    done = subprocess.run(
        [node(), "-"], input=f"{code}\n{PRINT}", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def evaluated(
    models: Sequence[Model], sliders: Sequence[Slider], cases: Sequence[tuple[int, Values, int]]
) -> list[Any]:
    """Return what the page computes for each case: the number of a model, values of its symbols, tokens."""
    settings = [
        [number, {**{size_key(name): value for name, value in values.items()}, TOKENS_KEY: tokens}]
        for number, values, tokens in cases
    ]
    code = (
        f"const CASES = {json.dumps(settings)};\n"
        "const RESULT = CASES.map(([number, settings]) => evaluate(MODELS[number], "
        "Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, BigInt(value)]))));"
    )
    found = run(script(models, sliders) + code)
    assert isinstance(found, list)
    return found


def expected(spec: MLBTC | AttentionSpec, values: Values, tokens: int) -> dict[str, Any] | None:
    """Return what `mlbtc analyze --format json --set ... --batch ...` prints, or None where it refuses."""
    try:
        placed = spec.with_defaults(values) if isinstance(spec, MLBTC) and values else spec
        return analyze(placed, tokens).to_json()
    except MlbtcError:
        return None


def check(spec: MLBTC | AttentionSpec, found: dict[str, Any], values: Values, tokens: int) -> bool:
    """Compare what the page computes with the report; return whether there were numbers."""
    wanted = expected(spec, values, tokens)
    at = f"{spec.name} at {dict(values)}, {tokens} tokens"
    if wanted is None:
        assert found["problems"], f"{at}: the report refuses, the page does not"
        return False
    assert not found["problems"], f"{at}: {found['problems']}"
    for key, measure in found["measures"].items():
        assert int(measure["value"]) == pick(wanted, key)["value"], f"{at}: {key}"
    for key, quantity in wanted["dense"].items():
        assert int(found["measures"][key]["dense"]) == quantity["value"], f"{at}: dense {key}"
    if "memory" in wanted:
        dense = found["measures"]["memory.bytes_moved"]["dense"]
        assert int(dense) == wanted["memory"]["dense_bytes_moved"]["value"], at
    assert found["rank"]["certainty"] == wanted["rank"]["certainty"], f"{at}: {wanted['rank']}"
    for name, plural in (("levels", "levels"), ("steps", "steps")):
        assert len(found[name]) == len(wanted[plural]), at
        for one, other in zip(found[name], wanted[plural], strict=True):
            for key, value in one.items():
                assert int(value) == pick(other, key.replace("bytes_moved", "bytes"))["value"], f"{at}: {name} {key}"
    texts = [step["text"] for step in found["plan"]["steps"]]
    assert texts == [step["step"].partition(": ")[0] for step in wanted["steps"]], at
    return True


def pick(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the quantity at a path such as `memory.bytes_moved`."""
    for part in key.split("."):
        data = data[part]
    return data
